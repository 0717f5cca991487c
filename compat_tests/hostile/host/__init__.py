"""Containers, local users and runtimes against the host: files outside of a container, private directories, hangs."""
