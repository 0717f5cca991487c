"""The process wharf-proxy: published ports that need a userland proxy, and the DNS server of user networks.

wharfd starts it and talks to it over a unix socket (``server.networks.proxy_client``); it outlives a wharfd that is
killed. It imports no asyncio: one epoll loop, see :mod:`engine.proxy.reactor`.
"""
