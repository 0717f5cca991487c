"""The OCI runtime spec of a container as Docker would write it: data in, a dict out.

``build.build(SpecInput, HostFacts)`` is the container, ``process.exec_process`` an exec inside it. What a client
may ask for and this room cannot give is refused by name; ``UNSUPPORTED`` lists it for the field matrix.
"""

from collections.abc import Mapping

#: ``HostConfig`` field → why it has no effect here. All are refused when set to more than their empty value.
UNSUPPORTED: Mapping[str, str] = {
    "Cgroup": "joining another container's cgroup was never offered by dockerd on Linux",
    "CpuCount": "Windows only",
    "CpuPercent": "Windows only",
    "IOMaximumIOps": "Windows only",
    "IOMaximumBandwidth": "Windows only",
    "Isolation": "Windows only; default is accepted",
    "KernelMemory": "gone from kernels since 5.16 and from the API since 1.42; ignored by dockerd, too",
}
