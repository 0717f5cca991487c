"""Layers: reads and writes tar archives, extracts them inside a confined root, and computes differences of trees.

``extract`` applies an archive to a ``target``, ``diff`` writes a change as a layer, ``pack`` writes a tree,
``compression`` decodes and encodes compressed streams, ``tarread`` and ``tarwrite`` implement the format. All functions
block: call them in a thread.
"""
