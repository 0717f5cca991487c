"""Networks, endpoints and sandboxes. :class:`server.networks.service.Networks` is what routes and containers call.

``bridges`` is the bridge driver, ``netlink`` and ``nftables`` speak to the kernel, ``ipam`` allocates addresses,
``ports`` publishes, ``dns`` writes the containers' files and tells wharf-proxy their names.
"""
