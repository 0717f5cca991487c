"""The process wharf-proxy: published ports that need a userland proxy, and the DNS server of user networks.

wharfd starts it and sends requests over a unix socket (``server.networks.proxy_client``); it outlives a wharfd that was
killed. It doesn't import asyncio: it runs one epoll loop, see :mod:`engine.proxy.reactor`.
"""
