"""Single values of a request, parsed and checked: names, signals, namespace modes, numbers of mounts and devices.

Nothing here reads a container's record or the host. Errors are INVALID_ARGUMENT with dockerd's sentences, unless a
function says otherwise.
"""
