"""The process wharfd: Docker's Engine API over HTTP, and the services behind it.

``routes`` parse a request and call one service; a service (``containers``, ``images``, ``builder``, ``networks``,
``volumes``, ``events``, ``system``) works through the engine's client (:mod:`engine.api.client`). Services import
neither ``server.http`` nor ``server.routes``; :mod:`server.wiring` creates all of them.
"""
