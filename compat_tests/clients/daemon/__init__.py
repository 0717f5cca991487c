"""The daemon itself: sockets, TLS, configuration, memory, `userns-remap`, an engine in a container, `docker info`."""
