"""The bridge driver: bridges and the default one's subnet, containers' links, repair of what other programs remove."""
