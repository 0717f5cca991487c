"""The OCI runtime spec of a container, as dockerd writes it.

``build.build(SpecInput, HostFacts)`` makes the spec of a container, ``process.exec_process`` the process of an exec.
Requests that can't be expressed in the spec, or that this host can't fulfil, raise an error with dockerd's sentence.
"""
