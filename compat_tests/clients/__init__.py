"""Real client programs and libraries against real engines."""
