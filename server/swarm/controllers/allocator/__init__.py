"""Virtual addresses and published ports of services, addresses of tasks and nodes."""
