"""The classic builder's front end (``POST /build`` version 1): its output, sentences, images and cache rules."""
