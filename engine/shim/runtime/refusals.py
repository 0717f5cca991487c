"""What the errors of the OCI runtimes mean: the only place that reads their text.

crun and runc report an error as a sentence in their log and an exit status of 1. Docker's clients decide by runc's
sentences, and the engine decides by the reason that is read from a sentence here, once. A reason is the value of an
``engine.common.errors.Reason``; the shim has no enumeration, as it imports nothing of the engine.
"""

import json
import re

from engine.shim.runtime.oci import CRUN, Runtime

PAUSED = "CONTAINER_PAUSED"
NOT_EXECUTABLE = "PERMISSION_DENIED"
IS_A_DIRECTORY = "IS_A_DIRECTORY"
NOT_A_DIRECTORY = "NOT_A_DIRECTORY"
NOT_FOUND = "NO_SUCH_FILE"
LOG_DRIVER = "LOG_DRIVER"

# In dockerd's order (daemon/errors.go), as a sentence may have the words of several. crun says "is paused", runc and
# containerd's shim "in a paused container" or "state".
_REASONS = (
    (PAUSED, ("is paused", "in a paused")),
    (NOT_EXECUTABLE, ("permission denied",)),
    (IS_A_DIRECTORY, ("is a directory",)),
    (NOT_A_DIRECTORY, ("not a directory",)),
    (
        NOT_FOUND,
        (
            "executable file not found",
            "no such file or directory",
            "system cannot find the file specified",
            "failed to run runc create/exec call",
        ),
    ),
)


def reason(message: str) -> str:
    """Why a process was not started, read from runc's words; "" for a reason that nothing depends on."""
    lower = message.lower()
    return next((name for name, words in _REASONS if any(word in lower for word in words)), "")


def last_message(log: str) -> str:
    """The last error of a runtime's JSON log (``""`` if it logged none); skips lines that are not the runtime's."""
    message = ""
    for line in log.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("level") in {"error", "fatal"}:
            message = str(entry.get("msg", "")).strip() or message
    return message


# crun's sentences for errors that clients recognize by runc's: the docker CLI derives exit status 127 or 126 from them.
_CRUN_MISSING = re.compile(r"(?:executable file|cannot find) `(?P<path>[^`]*)`(?: not found)?(?P<search> in \$PATH)?")
_CRUN_NOT_EXECUTABLE = re.compile(r"the path `(?P<path>[^`]*)` exists but it is not executable")
_CRUN_NOT_FILE = re.compile(r"the path `(?P<path>[^`]*)` is not a regular file")
_CRUN_CHDIR = re.compile(r"chdir to `(?P<path>[^`]*)`|chdir `(?P<path2>[^`]*)`")
_CRUN_OPEN = re.compile(r"open (?:executable )?`(?P<path>[^`]*)`: Permission denied")


def _crun_sentence(message: str) -> str | None:
    if found := _CRUN_MISSING.search(message):
        path = found["path"]
        if found["search"]:
            return f'exec: "{path}": executable file not found in $PATH'
        return f'exec: "{path}": stat {path}: no such file or directory'
    if found := _CRUN_NOT_EXECUTABLE.search(message) or _CRUN_OPEN.search(message):
        return f'exec: "{found["path"]}": permission denied'
    if found := _CRUN_NOT_FILE.search(message):
        return f'exec: "{found["path"]}": is a directory: permission denied'
    if found := _CRUN_CHDIR.search(message):
        path = found["path"] or found["path2"]
        reason = message.rsplit(": ", 1)[-1].lower()
        return f'chdir to cwd ("{path}") set in config.json failed: {reason}'
    return None


_SHIM_SENTENCE = re.compile(r"OCI runtime (?P<verb>create|start|exec) failed: (?P<runtime>.*)\Z", re.DOTALL)


def in_runcs_words(message: str) -> str:
    """Turns crun's words in a stock containerd's sentence into runc's, as :func:`explain` does. Its gRPC code, which
    libraries before dockerd 29's appended, is removed."""
    message = message.removesuffix(": unknown")
    found = _SHIM_SENTENCE.search(message)
    sentence = _crun_sentence(found["runtime"]) if found and "exec: " not in found["runtime"] else None
    if found is None or sentence is None:
        return message
    prefix = "exec failed" if found["verb"] == "exec" else f"crun {found['verb']} failed"
    words = f"{prefix}: unable to start container process: {sentence}"
    return message[: found.start("runtime")] + words + message[found.end("runtime") :]


def explain(runtime: Runtime, verb: str, message: str) -> str:
    """dockerd's sentence when ``verb`` (``create``, ``start``, ``exec`` …) failed with ``message``.

    ``OCI runtime create failed: runc create failed: unable to start container process: exec: "x": executable file not
    found in $PATH``, as containerd's shim words it; crun's words are turned into runc's where clients match on them.
    """
    if not message:
        message = f"{runtime.path} did not terminate successfully"
    if runtime.name == CRUN and verb in {"create", "start", "exec"}:
        if sentence := _crun_sentence(message):
            prefix = "exec failed" if verb == "exec" else f"{runtime.name} {verb} failed"
            message = f"{prefix}: unable to start container process: {sentence}"
        else:
            message = f"{runtime.name}: {message}"
    return f"OCI runtime {verb} failed: {message}"
