"""Reads and writes files of root file systems from outside: for builds, ``docker cp``, ``export`` and ``diff``.

``mount_thread.py`` runs work in a thread with a private mount namespace, where snapshots are mounted.
"""
