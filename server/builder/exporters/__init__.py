"""What becomes of a build's result: a named image, an archive or a folder of the client, with provenance."""
