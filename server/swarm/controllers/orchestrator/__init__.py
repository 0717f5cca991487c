"""Which tasks a service has: created, restarted, updated, stopped and removed. Nodes and addresses are chosen later."""
