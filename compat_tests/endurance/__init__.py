"""Programs, started by hand, that run an engine for minutes or hours: soak, stress, crash, disconnects."""
