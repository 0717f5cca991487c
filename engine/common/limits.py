"""Limits on the computing, memory and disk that one request may use.

The error that refuses a request names the limit (:func:`exceeded`), so that an operator can find it here. Both daemons
import this module; it imports only the errors.
"""

from engine.common.errors import WharfError, invalid

# Builds

DOCKERFILE_BYTES = 4 << 20
"""Bytes of a Dockerfile or of a ``.dockerignore``."""
DOCKERFILE_STAGES = 10_000
"""Stages of one Dockerfile."""
STAGE_DEPTH = 100
"""Stages that are built on, or copy from, one another."""
IGNORE_PATTERNS = 20_000
"""Patterns of a ``.dockerignore`` or of the ``--exclude`` of one ``COPY``."""
COMPARED_SOURCES = 1000
"""Sources of ``COPY`` and ``ADD`` that a build check compares with a ``.dockerignore``; further ones are not
compared."""
BUILD_OPTIONS = 10_000
"""Entries of each list in the request for one build: build arguments, labels, outputs, caches, attributes."""
EXPANSION_BYTES = 16 << 20
"""Characters that the instructions of one Dockerfile may expand to: the values of variables, the ports of ``EXPOSE``,
the environment of each ``RUN``."""
EXPANSION_DEPTH = 50
"""Nested substitutions such as ``${a:-${b}}``."""
UNDEFINED_VARIABLES = 500
"""Uses of undefined variables that a build check reports; further ones are not reported."""
SUGGESTED_NAMES = 200
"""Names that are compared with a misspelt one."""

# Log tags

TEMPLATE_BYTES = 1 << 20
"""Characters of a template, and of each value that it produces."""
TEMPLATE_STEPS = 20_000
"""Actions that a template executes, including those of its loops."""

# Filters

FILTER_VALUES = 10_000
"""Values of all filters of one request: each is compared with the fields of each listed object."""
FILTER_PORTS = 200_000
"""Ports in all ranges of one filter."""

# Requests

JSON_VALUES = 350_000
"""Values in the JSON body of one request: elements of arrays, members of objects. A container that publishes all ports
of TCP has 330,000 (five for each port)."""

# Containers

CONTAINER_MOUNTS = 10_000
"""Mount points of one container: binds, volumes, tmpfs, those of other containers and of the image. The kernel allows
100,000 in a namespace (``fs.mount-max``), and the runtime's time per mount grows with their number."""
CONTAINER_DEVICES = 10_000
"""Devices of one container: created, requested or limited ones, and the rules about them."""
CONTAINER_PORTS = 200_000
"""Ports in all bindings of one container: all ports of TCP, UDP and SCTP once."""
CONTAINER_NETWORKS = 1000
"""Networks that a container joins at its start."""

# Job sockets

JOB_SOCKETS = 256
"""Job sockets of one user."""

# Users

USER_CONNECTIONS = 1024
"""Open connections of one user, unless the role has another number (``connections``)."""

# Networks

RANDOM_PORTS = 8192
"""Ports of one container that are published at random ports of the host."""
NETWORK_SUBNETS = 1000
"""Subnets of one network. A bridge has at most two, one per family."""
NETWORK_AUXILIARY = 10_000
"""Auxiliary addresses of all subnets of one network."""
DNS_RULES = 256
"""Rules in the tables of a container's namespace that are read for one chain of the DNS redirect: a container with
CAP_NET_ADMIN can add any number. A container with more keeps what it has."""
NETWORK_ROUTES = 1000
"""Static routes that a network plugin adds to one container."""

# Swarms

SWARM_NODES = 10_000
"""Nodes of one swarm: whoever knows a join token adds nodes."""
SWARM_WRONG_TOKENS = 10
"""Wrong join tokens of one address within a minute."""
SWARM_ATTACHMENTS = 10_000
"""Containers of users of one node that are attached to networks of the swarm."""

# Patterns and regular expressions

GLOB_BYTES = 8192
"""Characters of one pattern of a ``.dockerignore`` or of ``COPY``, or of all patterns of one filter. A path has at most
4,096."""
REGEX_BYTES = 4096
"""Characters of one regular expression, or of all expressions of one filter."""
REGEX_MEMORY = 1 << 20
"""Bytes of a compiled regular expression with the states that a search adds to it (RE2's ``max_mem``)."""

# Images

DOCUMENT_BYTES = 8 << 20
"""Bytes of a manifest, an index, an image config or a list of tags (registries accept manifests of 4 MiB)."""
DOCUMENT_VALUES = 500_000
"""Elements of arrays and members of objects in such a document: 100,000 steps of a history have as many."""
LAYER_BYTES = 1 << 40
"""Bytes that a manifest may declare for one layer."""
IMAGE_BYTES = 4 << 40
"""Bytes that a manifest may declare for all layers together."""
IMAGE_LAYERS = 500
"""Layers of one image: Linux stacks no more directories in an overlay (``OVL_MAX_STACK``)."""
REPOSITORY_TAGS = 100_000
"""Tags of one repository that ``docker pull -a`` pulls."""
STATEMENTS_BYTES = 64 << 20
"""Bytes of the attestation statements in one answer; a large image's list of packages has some 10 MB."""
ARCHIVE_FILES = 100_000
"""Files of an archive for ``docker load`` whose names may be those of an image's parts."""
ARCHIVE_DOCUMENT_BYTES = 64 << 20
"""Bytes of all documents (manifests, configs) outside ``blobs/`` of such an archive; they are kept in memory."""

# Audit log

AUDIT_LINES = 10_000
"""Lines of the audit log that one answer has, without those that follow."""

# Accounts

USAGE_DAYS = 3660
"""Days of one answer."""
USAGE_ROWS = 100_000
"""Rows of one answer that has a row for each container and day."""

# Idle limits

GPU_DESCRIPTORS = 65536
"""Open files of a container's processes among which those of GPUs are searched; with more of them, the use of its GPUs
is unknown."""

# Metrics

METRICS_CONTAINERS = 5000
"""Containers of one answer; further ones are counted only."""
METRICS_DEVICES = 16
"""Network interfaces, and block devices, of one container; further ones are omitted."""
METRICS_LABEL = 256
"""Characters of the value of a label; the rest is cut off."""

# The page

DIRECTORY_ENTRIES = 5000
"""Entries of one directory of a container that are listed; there may be more."""

UI_HISTORIES = 2000
"""Containers whose use is sampled for the page, and kept for an hour: 17 KiB each."""
UI_LOGS = 50
"""Containers whose logs are followed in one stream."""

# Timelines

TIMELINE_PHASES = 256
"""Phases of one operation; further ones are omitted."""
TIMELINES = 100
"""Pulls and builds whose timelines are kept."""
TIMELINES_OF_OWNER = 20
"""Those of them that belong to one owner."""


def exceeded(name: str, what: str) -> WharfError:
    """INVALID_ARGUMENT for ``what``, which exceeds the limit ``name`` (a constant of this module)."""
    return invalid(f"{what} exceeds the limit {name} ({globals()[name]})")
