"""Tests of the tests' own tools, and of the published API description."""
