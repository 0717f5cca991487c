"""Plans a build: instructions and base images become stages of steps. Variables are expanded; nothing is run.

Planning is pure: equal instructions, options and bases give equal steps. It may take seconds, so it runs in a thread.
"""
