"""The OCI runtime spec of a container as Docker would write it: data in, a dict out.

``build.build(SpecInput, HostFacts)`` is the container, ``process.exec_process`` an exec inside it. What a client
may ask for and this package cannot give is refused by name.
"""
