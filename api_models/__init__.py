"""The words of the Engine API: pydantic models by group."""
