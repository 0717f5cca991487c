"""The reasons parsed from sentences of crun and runc."""

import pytest

from engine.common.errors import Reason
from engine.shim.runtime import refusals
from engine.shim.runtime.oci import CRUN, RUNC, Runtime

CRUN_AT = Runtime(CRUN, "/usr/bin/crun", "/run")
RUNC_AT = Runtime(RUNC, "/usr/bin/runc", "/run")


@pytest.mark.parametrize(
    ("runtime", "verb", "message", "sentence", "reason"),
    [
        (
            CRUN_AT,
            "create",
            "executable file `nope` not found in $PATH: No such file or directory",
            'crun create failed: unable to start container process: exec: "nope": executable file not found in $PATH',
            "NO_SUCH_FILE",
        ),
        (
            CRUN_AT,
            "create",
            "the path `/etc/passwd` exists but it is not executable: Permission denied",
            'crun create failed: unable to start container process: exec: "/etc/passwd": permission denied',
            "PERMISSION_DENIED",
        ),
        (
            CRUN_AT,
            "exec",
            "the path `/etc` is not a regular file",
            'exec failed: unable to start container process: exec: "/etc": is a directory: permission denied',
            "PERMISSION_DENIED",
        ),
        (CRUN_AT, "exec", "the container `x` is paused.", "crun: the container `x` is paused.", "CONTAINER_PAUSED"),
        (
            RUNC_AT,
            "exec",
            "cannot exec in a paused container (use --ignore-paused to override)",
            "cannot exec in a paused container (use --ignore-paused to override)",
            "CONTAINER_PAUSED",
        ),
        (
            RUNC_AT,
            "create",
            'runc create failed: error mounting "/a" to rootfs at "/b": not a directory',
            'runc create failed: error mounting "/a" to rootfs at "/b": not a directory',
            "NOT_A_DIRECTORY",
        ),
        (RUNC_AT, "create", "", "/usr/bin/runc did not terminate successfully", ""),
    ],
)
def test_sentences_are_runcs_and_have_a_reason(
    runtime: Runtime, verb: str, message: str, sentence: str, reason: str
) -> None:
    said = refusals.explain(runtime, verb, message)
    assert said == f"OCI runtime {verb} failed: {sentence}"
    assert refusals.reason(said) == reason


def test_every_reason_is_one_of_the_engines() -> None:
    named = {value for name, value in vars(refusals).items() if name.isupper() and isinstance(value, str)}
    named -= {CRUN}
    assert len(named) == 6
    assert named <= {reason.value for reason in Reason}
