"""The engine's version, in one place."""

# What clients see as the engine's version. The part before the "+" is the Docker release whose API 1.51 this is:
# tools compare it as a number. The part behind it is ours.
SERVER_VERSION = "28.5.2+wharf.0.2.0"

# Of a release these name its commit and its day; a checkout has neither.
GIT_COMMIT = ""
BUILD_TIME = ""
