"""wharfd: the Engine API daemon. Data travels route → service → engine client."""
