"""The supervisor's metadata."""
