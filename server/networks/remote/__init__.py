"""Networks whose driver or IPAM driver is a plugin of Docker's legacy protocol (``NetworkDriver``, ``IpamDriver``).

``messages`` parses what plugins answer, ``driver`` and ``ipam`` call them, ``registry`` finds and keeps them. ``pools``
has the subnets of networks, ``endpoints`` the calls for containers, ``gateway`` the network ``docker_gwbridge``, and
``service`` is what the rest of ``server/networks`` uses, through ``server/networks/remotes``.

The engine is no swarm node, so it never calls ``AllocateNetwork``, ``FreeNetwork``, ``DiscoverNew`` and
``DiscoverDelete``: the reference calls them in a swarm only.
"""
