"""The exit code and the error of a failed start, from the engine's reason or only from its message."""

import pytest

from engine.common.errors import Kind, Reason, WharfError, internal
from server.containers.run.failures import refusal, start_failure

STOCK = "failed to create shim task: OCI runtime create failed: "


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (internal("x", reason=Reason.PERMISSION_DENIED), 126, Kind.INVALID_ARGUMENT),
        (internal("x", reason=Reason.IS_A_DIRECTORY), 126, Kind.INVALID_ARGUMENT),
        (internal("x", reason=Reason.NOT_A_DIRECTORY), 127, Kind.INVALID_ARGUMENT),
        (internal("x", reason=Reason.NO_SUCH_FILE), 127, Kind.INVALID_ARGUMENT),
        (internal("x"), 128, Kind.INTERNAL),
        (internal('permission denied: "/x": no such file or directory', reason=Reason.NO_SUCH_FILE), 127, None),
        (internal(f"{STOCK}crun: executable file `x` not found in $PATH: unknown"), 127, Kind.INVALID_ARGUMENT),
        (internal(f"{STOCK}runc: not a directory: unknown"), 127, Kind.INVALID_ARGUMENT),
        (internal("failed to initialize logging driver: permission denied", reason=Reason.LOG_DRIVER), 126, None),
        (WharfError(Kind.UNAVAILABLE, "permission denied"), 128, Kind.UNAVAILABLE),
    ],
)
def test_exit_codes(error: WharfError, code: int, kind: Kind | None) -> None:
    found, failure = start_failure(error)
    assert found == code
    assert failure.kind is (kind or Kind.INVALID_ARGUMENT)


def test_a_directory_is_reported_as_permission_denied() -> None:
    assert start_failure(internal("x", reason=Reason.IS_A_DIRECTORY))[1].message == "x: permission denied"


def test_the_code_of_a_stock_containerd_is_no_part_of_the_sentence() -> None:
    words = f"{STOCK}crun: executable file `x` not found in $PATH: unknown"
    prefix = f"{STOCK}crun create failed: unable to start container process"
    assert refusal(internal(words))[0] == f'{prefix}: exec: "x": executable file not found in $PATH'


@pytest.mark.parametrize("words", ["container is paused", "cannot exec in a paused state: unknown"])
def test_a_paused_container_is_recognized_by_the_message_of_a_stock_containerd(words: str) -> None:
    assert refusal(internal(words))[1] is Reason.CONTAINER_PAUSED
