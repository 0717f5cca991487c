"""Opens the log driver that a stdio URI names."""

import json
from collections.abc import Callable, Mapping

from engine.shim.logs.driver import LogDriver, NoLog
from engine.shim.logs.files import JsonFile, Local
from engine.shim.logs.rotate import LogFile
from engine.shim.loop import Loop

RunChild = Callable[[Callable[[], None]], Callable[[], None]]


def _number(options: Mapping[str, str], name: str, default: int) -> int:
    text = options.get(name, "")
    try:
        return int(text) if text else default
    except ValueError:
        raise ValueError(f"log option {name}={text!r} is no number") from None


def open_log(options: Mapping[str, str], loop: Loop, run_child: RunChild | None = None) -> LogDriver:
    """The driver that the options of a stdio URI ask for.

    ``driver`` (absent: none), ``path``, ``max-size`` (bytes), ``max-file``, ``compress`` (0/1), ``attrs`` (a JSON
    object of strings). For another driver than ``json-file``, ``local`` and ``none`` they are those of its copy, and
    ``remote``, ``mode`` and ``buffer`` its own: see ``engine.shim.logs.remote.driver``.

    :raises ValueError: an unknown driver, a malformed option, or a server that can't be reached.
    :raises OSError: the file can't be opened.
    """
    driver = options.get("driver", "none")
    if driver == "none":
        return NoLog()
    if driver not in {"json-file", "local"}:
        from engine.shim.logs.remote.driver import open_remote

        cache = open_log({**options, "driver": "local"}, loop, run_child) if options.get("path") else NoLog()
        try:
            return open_remote(driver, options, cache, loop)
        except BaseException:
            cache.close()
            raise
    if not options.get("path"):
        raise ValueError(f"log driver {driver} needs a path")
    file = LogFile(
        options["path"],
        max_size=max(0, _number(options, "max-size", 0 if driver == "json-file" else 20 << 20)),
        max_files=_number(options, "max-file", 1 if driver == "json-file" else 5),
        gzip=options.get("compress", "0" if driver == "json-file" else "1") in {"1", "true"},
        run_child=run_child,
    )
    if driver == "local":
        return Local(file)
    attributes = json.loads(options.get("attrs") or "{}")
    if not isinstance(attributes, dict):
        raise ValueError("log option attrs is no JSON object")
    return JsonFile(file, {str(key): str(value) for key, value in attributes.items()})
