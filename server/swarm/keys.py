"""The swarm's data key: managers encrypt with it what nobody may read in the store or in a backup of it. That is the
data of secrets and configs, credentials, the root key and the join tokens.

Two files below the swarm's directory hold it:

===============  ====================================================================================================
``data.key``     the data key, sealed by the manager's key or, in a swarm with autolock, by the unlock key
``manager.key``  the manager's key; absent in a swarm with autolock, where an administrator knows the unlock key
===============  ====================================================================================================

A crash between the changes of both files leaves a manager's key that did not seal the data key: it is ignored.
"""

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from api_models.record import Record
from engine.common.errors import Kind, WharfError, internal, invalid
from engine.common.files.writing import sync_directory
from engine.common.system import aesgcm
from server.swarm.files import read_record, write, write_record
from server.swarmtext import LOCKED

_PREFIX = "SWMKEY-1-"
DATA_KEY, MANAGER_KEY = "data.key", "manager.key"


class WrongKey(WharfError):
    """The unlock key is not the one that sealed the data key."""

    def __init__(self) -> None:
        super().__init__(Kind.UNAUTHENTICATED, "swarm could not be unlocked: invalid key provided")


class Locked(WharfError):
    """The data key is sealed by the unlock key, which is not known yet."""

    def __init__(self) -> None:
        super().__init__(Kind.UNAVAILABLE, LOCKED)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sealed(Record):
    """The content of ``data.key``. ``by``: identifies the key that sealed it (not secret: it is a hash of it)."""

    sealed: Annotated[str, Field(alias="sealed")] = ""
    by: Annotated[str, Field(alias="by")] = ""


class Keys:
    """The data key of the swarm on this manager."""

    def __init__(self, directory: Path, data_key: bytes | None, sealed: _Sealed, key: bytes) -> None:
        """``data_key`` None: it is opened when it is first needed. ``key``: that by which it is sealed on the disk."""
        self._directory = directory
        self._data_key = data_key
        self._sealed = sealed
        self._key = key

    @classmethod
    def create(cls, directory: Path, data_key: bytes = b"") -> "Keys":
        """Seals the data key by a new manager's key. ``data_key`` b"": of a new swarm."""
        key, data_key = os.urandom(aesgcm.KEY_BYTES), data_key or os.urandom(aesgcm.KEY_BYTES)
        write(directory / MANAGER_KEY, key)
        keys = cls(directory, data_key, _Sealed(), key)
        keys._store(key)
        return keys

    @classmethod
    def load(cls, directory: Path, unlock_key: str = "") -> "Keys":
        """:raises Locked: without the unlock key. :raises WrongKey: with a wrong one.
        :raises WharfError: INVALID_ARGUMENT: it is no unlock key. :raises OSError: a file is missing.
        """
        sealed = read_record(directory / DATA_KEY, _Sealed)
        if unlock_key:
            key = parse_unlock_key(unlock_key)
            if _name(key) != sealed.by:
                raise WrongKey
        else:
            try:
                key = (directory / MANAGER_KEY).read_bytes()
            except FileNotFoundError:
                raise Locked from None
            if _name(key) != sealed.by:
                raise Locked
        return cls(directory, None, sealed, key)

    def data_key(self) -> bytes:
        """The key itself, for a node that becomes a manager."""
        return self._opened()

    def seal(self, data: bytes) -> str:
        """Encrypts and authenticates; base64."""
        return _seal(self._opened(), data)

    def open(self, text: str) -> bytes:
        """:raises WharfError: INTERNAL: this data key did not seal the text."""
        return _open(self._opened(), text)

    def reseal(self, unlock_key: str) -> None:
        """Seals the data key on the disk by the unlock key; by a manager's key if that is "". Nothing happens if it is
        already sealed so."""
        path = self._directory / MANAGER_KEY
        if unlock_key:
            key = parse_unlock_key(unlock_key)
            if _name(key) != self._sealed.by:
                self._store(key)
            if path.exists():
                path.unlink()
                sync_directory(self._directory)
        elif not path.exists() or path.read_bytes() != self._key:
            key = os.urandom(aesgcm.KEY_BYTES)
            write(path, key)
            self._store(key)

    def _opened(self) -> bytes:
        if self._data_key is None:
            self._data_key = _open(self._key, self._sealed.sealed)
        return self._data_key

    def _store(self, key: bytes) -> None:
        sealed = _Sealed(sealed=_seal(key, self._opened()), by=_name(key))
        write_record(self._directory / DATA_KEY, sealed)
        self._sealed, self._key = sealed, key


def new_unlock_key() -> str:
    """``SWMKEY-1-`` and 32 random bytes in base64."""
    return _PREFIX + base64.b64encode(os.urandom(aesgcm.KEY_BYTES)).decode().rstrip("=")


def parse_unlock_key(text: str) -> bytes:
    """:raises WharfError: INVALID_ARGUMENT ``invalid key string``."""
    encoded = text.removeprefix(_PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(_PREFIX) or not key:
        raise invalid("invalid key string")
    return key


def _name(key: bytes) -> str:
    return hashlib.sha256(b"wharf swarm key " + key).hexdigest()[:16]


def _seal(key: bytes, data: bytes) -> str:
    # Random: up to 2³² values may be sealed by one key (NIST SP 800-38D, section 8.3).
    nonce = os.urandom(aesgcm.NONCE_BYTES)
    return base64.b64encode(nonce + aesgcm.encrypt(key, nonce, data)).decode()


def _open(key: bytes, text: str) -> bytes:
    sealed = base64.b64decode(text)
    try:
        return aesgcm.decrypt(key, sealed[: aesgcm.NONCE_BYTES], sealed[aesgcm.NONCE_BYTES :])
    except ValueError:
        raise internal("the swarm's data key did not seal this value") from None
