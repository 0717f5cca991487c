"""Builds: what the front doors share, and the classic one (``POST /build``).

options.py   what a build may be asked for, as data
context.py   the files that a client sends, or that a URL or a repository gives
classic.py   the lines that the classic builder's clients read
service.py   one build from its options to its image
lease.py     what holds all that a build uses
historycache.py, metadata.py, sentences.py, squash.py  what only the classic builder has: ``cachefrom``, the times of
             instructions without a layer, its words, ``squash``
"""
