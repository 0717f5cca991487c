"""Servers that tests run beside an engine: registries, proxies, log servers, plugins, a web server."""
