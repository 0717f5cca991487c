"""A mixed load on an engine whose processes are killed at random moments: ``python -m compat_tests.chaos``.

``journal`` records operations and faults and finds failures that no fault explains; ``faults`` kills processes;
``load`` runs short-lived objects; ``residents`` are long-lived containers whose final state is checked; ``storm``
combines them and checks for leftovers.
"""
