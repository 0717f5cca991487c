"""Images and archives with hostile content: compressed bombs, inconsistent manifests, links out of a layer."""
