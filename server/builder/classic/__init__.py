"""The classic builder's front end (``POST /build`` version 1): its output, error sentences, images and cache rules."""
