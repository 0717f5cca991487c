"""Layers: tar archives read and written at speed, extracted inside a confined root, and computed as differences.

``extract`` applies an archive to a directory, ``diff`` makes a layer of a change, ``pack`` writes a tree,
``compression`` opens and makes compressed streams, ``tarread``/``tarwrite`` know the format. All of it blocks
and belongs into a thread.
"""
