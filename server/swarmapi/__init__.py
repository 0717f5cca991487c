"""What a node of a swarm serves to other nodes; the requests are listed in ``server.swarm.remote``. The composition
root imports this package only in a swarm.

===============  ======================================================================================================
``listener``     a TCP port with TLS, whose connections use the node's certificate as it is when they begin
``application``  looks up the route, checks the caller's certificate, answers errors
``caller``       the node that calls, and what it may call
``attempts``     bounds how often an address presents a wrong join token
``streams``      lines and frames that go on for as long as the caller reads
``managers``     the routes of the managers' port
``nodes``        the routes of every node's port
``images``       those of them that other nodes read images from
===============  ======================================================================================================
"""
