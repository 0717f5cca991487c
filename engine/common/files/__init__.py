"""Reading and writing the files of a root file system from outside: builds, ``docker cp``, ``export``, ``diff``.

``mount_thread.py`` runs work in a thread with a private mount namespace, where snapshots are mounted.
"""
