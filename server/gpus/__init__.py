"""The allocation of GPUs to containers, on an engine with a policy. Without one, nothing of this package is loaded.

``catalog`` finds the GPUs of this host in its CDI specifications; ``demand`` reads what a container requests;
``allocator`` knows who has which GPU and chooses free ones; ``queue`` has the containers that wait, in a fair order.
These four do no I/O. ``service`` connects them with containers: see ``server.containers.neighbours.Gpus``.

* A GPU belongs to one container at a time, from its start to its exit. GPUs of ``shared_gpus`` of a role may be had by
  several containers whose roles name them.
* ``gpus`` of a role is the number of different GPUs that a user's containers may have together.
* The record of a container has its GPUs, so the allocations of running containers are those of the daemon before.
* A container with the label ``wharf.wait`` waits. Users take turns; among the containers of a user the older one is
  first. What a waiting container could use is not given to one behind it, so a request for many GPUs is not delayed by
  small ones without end.
"""
