"""The bridge driver: bridges, their claims, the containers' links, and the repair of what other programs remove."""
