"""The engine's version."""

# The version that clients see. Before the "+" is the Docker release of API 1.55: tools compare it as a number. The
# part after it is Wharf's own version.
SERVER_VERSION = "29.7.2+wharf.0.2.0"

# A release sets its commit and date; a checkout has neither.
GIT_COMMIT = ""
BUILD_TIME = ""
