"""The copy of the store in memory. ``tables`` has the look-ups, ``state`` follows the store and commits changes,
``leadership`` chooses the manager that runs the controllers, whose commits ``fenced`` guards."""
