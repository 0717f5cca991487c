"""Networks of a swarm on this node: bridges that the nodes connect by VXLAN, the virtual addresses of services, and the
routing mesh."""
