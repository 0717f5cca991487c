"""rtnetlink, network namespaces, connection tracking and change notifications. All calls block."""
