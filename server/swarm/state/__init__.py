"""The copy of the store in memory. ``tables`` has the look-ups, ``state`` follows the store and commits changes."""
