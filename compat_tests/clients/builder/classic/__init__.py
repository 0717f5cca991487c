"""The classic builder: `POST /build` without a version, docker-py, and the CLI with `DOCKER_BUILDKIT=0`."""
