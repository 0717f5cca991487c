"""A mixed load on an engine whose processes are killed at random moments: ``python -m compat_tests.chaos``.

``journal`` records operations and faults and says which failure no fault explains; ``faults`` does the kills; ``load``
is what comes and goes; ``residents`` are the containers that must be what they should be at the end; ``storm`` joins
them and looks at what is left.
"""
