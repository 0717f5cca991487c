"""Build contexts: an archive that the client sends, the content of a URL, or a git repository.

The files are extracted, confined, to a directory of the engine, which is removed with the build. ``contexts`` opens
them; ``stream``, ``download`` and ``git`` fill the directory; ``files`` reads it.
"""
