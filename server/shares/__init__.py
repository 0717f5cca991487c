"""The shares of an engine's users: what their containers may use of the machine, by the roles of the policy.

``service`` is what the other rooms call, through the Protocol ``Shares`` of ``server.containers.neighbours``; it joins

* ``roles``: the role of an owner by the present policy;
* ``naming``, ``cgroups`` and ``slices``: one cgroup for each user, above its containers, with the role's limits;
* ``usage`` and ``limits``: the number of containers, and the disk that an owner uses;
* ``times``: the maximum run time and the idle limit;
* ``accounting``: what each container has used, by day.

An engine without a policy loads none of it.
"""
