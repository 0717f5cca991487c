"""The cipher against another implementation."""

import os

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from engine.common.system import aesgcm


@pytest.fixture(params=["of Python", "none"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways: with the libcrypto of Python, and where its functions can't be looked up."""
    if request.param == "none":
        monkeypatch.setattr(aesgcm, "_library", lambda: None)
    else:
        assert aesgcm._library() is not None


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 4096, 500_001])
def test_the_result_is_that_of_another_implementation(size: int) -> None:
    key, nonce, data = os.urandom(32), os.urandom(12), os.urandom(size)
    sealed = aesgcm.encrypt(key, nonce, data)
    assert sealed == AESGCM(key).encrypt(nonce, data, None)
    assert aesgcm.decrypt(key, nonce, sealed) == data


def test_what_was_changed_is_refused() -> None:
    key, nonce = os.urandom(32), os.urandom(12)
    sealed = aesgcm.encrypt(key, nonce, b"data")
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(ValueError, match="failed"):
            aesgcm.decrypt(key, nonce, bytes(changed))
    with pytest.raises(ValueError, match="failed"):
        aesgcm.decrypt(os.urandom(32), nonce, sealed)
    with pytest.raises(ValueError, match="failed"):
        aesgcm.decrypt(key, os.urandom(12), sealed)


def test_wrong_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="length"):
        aesgcm.encrypt(b"k" * 16, b"n" * 12, b"")
    with pytest.raises(ValueError, match="length"):
        aesgcm.decrypt(b"k" * 32, b"n" * 11, b"t" * 16)
    with pytest.raises(ValueError, match="missing"):
        aesgcm.decrypt(b"k" * 32, b"n" * 12, b"t" * 15)
