"""On which node a task runs."""
