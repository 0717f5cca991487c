"""Networks, endpoints and sandboxes. :class:`server.networks.service.Networks` is what routes and containers call.

``sandboxes`` makes, changes and removes the network of a container. ``bridges`` is the bridge driver, ``netlink`` and
``nftables`` call the kernel, ``ipam`` allocates addresses, ``ports`` publishes, ``dns`` writes the containers' files
and sends their names to wharf-proxy.
"""
