"""How costs grow: with the number of containers that exist, of an image's layers and of its files.

``python -m compat_tests.bench.growth`` measures both engines into a file of curves and draws them. ``curves`` keeps
them, ``containers`` and ``images`` measure them, ``plots`` draws them.
"""
