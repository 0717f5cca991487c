"""The man pages and the shells' completions of the programs, generated from their own tables of options.

:class:`~server.manual.command.Command` describes a program; it is made from the options of ``wharfd``
(:mod:`server.manual.wharfd`) or from an :class:`argparse.ArgumentParser` (:func:`server.manual.command.from_parser`).
``python -m server.manual DIRECTORY`` writes all files, as the Debian package lays them out below ``/usr/share``. No
daemon imports this package.
"""
