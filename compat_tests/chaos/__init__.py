"""A mixed load on an engine whose processes are killed at random moments: ``python -m compat_tests.chaos``.

``journal`` records operations and faults and finds failures that no fault explains; ``faults`` kills processes;
``load`` runs short-lived objects; ``long_lived`` runs containers whose final state is checked; ``experiment`` combines
them and checks for leftovers.
"""
