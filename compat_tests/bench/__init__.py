"""The benchmark: Wharf and Debian's dockerd in turn, on one machine. `python -m compat_tests.bench --help`."""
