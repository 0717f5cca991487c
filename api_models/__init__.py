"""The types of the Engine API: pydantic models by group."""
