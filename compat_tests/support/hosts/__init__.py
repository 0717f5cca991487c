"""Hosts for tests of several machines: each has a network, a UTS and a mount namespace, and an engine in them.

=============  ======================================================================================================
``segment``    the Ethernet between them: a bridge in a namespace of its own, with faults
``machine``    the namespaces of one host, held by an init process
``host``       an engine in such namespaces, with its faults
``group``      starts and ends several hosts
=============  ======================================================================================================

Nothing of a host is visible in the namespaces of the machine that runs the tests, except processes, cgroups and the
directory of its engine.
"""
