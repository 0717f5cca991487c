"""Imports modules of a package without running its ``__init__``: some packages import everything there."""

import sys
from importlib.util import find_spec, module_from_spec


def skip_init(name: str) -> None:
    """Makes the modules of a package importable without running its ``__init__``. Does nothing if it is loaded already.

    :raises ImportError: it isn't installed.
    """
    if name in sys.modules:
        return
    spec = find_spec(name)
    if spec is None:
        raise ImportError(f"{name} is not installed", name=name)
    sys.modules[name] = module_from_spec(spec)
