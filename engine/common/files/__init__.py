"""Reading and writing the files of a root file system from outside: builds, ``docker cp``, ``export``, ``diff``.

``place.py`` gives a thread whose mounts nobody else sees; what is done in it is confined to the mounted root.
"""
