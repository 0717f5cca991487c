"""Builds: the classic builder, BuildKit, buildx and bake."""
