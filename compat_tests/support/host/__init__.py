"""The host of the tests: names, subnets and ports for engines, and the traces that an engine leaves."""
