"""The benchmark: ours and Debian's dockerd, in turn, on the same machine. `python -m compat_tests.bench --help`."""
