"""Single values of a request, parsed and checked: names, signals, namespace modes, numbers of mounts and devices.

No function needs a container's record or the host. Errors are INVALID_ARGUMENT with dockerd's sentences, unless a
docstring names another kind.
"""
