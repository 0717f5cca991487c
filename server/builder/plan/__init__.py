"""From instructions and base images to stages of steps. Variables are expanded here; nothing is run.

Planning is pure: the same instructions, options and bases give the same steps. It may be long and runs in a thread.
"""
