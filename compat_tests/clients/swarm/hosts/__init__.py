"""Swarms of several hosts with the docker CLI; ``--engine dockerd`` runs the tests on Debian's dockerd."""
