"""Clients that take long to install or to run, started by hand (``python -m compat_tests.ecosystem``).

Each is a folder of ``clients``: its ``run.sh`` runs in a copy of the folder, with the engine in ``DOCKER_HOST``, and
exits with 0 if the client works. Its first line, a comment, says what it proves.
"""
