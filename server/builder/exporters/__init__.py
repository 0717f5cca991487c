"""Exporters of a build's result: a named image, an archive or directory of the client, with provenance."""
