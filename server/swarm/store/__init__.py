"""The swarm's store: keys with values and revisions, as etcd has them. ``interface`` is the contract, ``sqlite`` the
store of a swarm with one manager; ``tests/test_stores.py`` runs over every store."""
