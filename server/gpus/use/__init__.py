"""Whether containers compute on their GPUs, for the idle limit of roles. Imported only for containers that have GPUs
and a role with this limit.

* ``drm`` reads what the kernel reports of the clients of its DRM drivers, and of the processes of AMD's compute driver;
* ``nvml`` asks NVIDIA's driver by its management library;
* ``meter`` chooses by the container's GPUs, and compares with the measurement before.

What can't be measured is reported with the reason: it is for the policy to say what follows.
"""
