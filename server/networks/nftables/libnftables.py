"""libnftables: nft's own parser and transaction code, called in this process instead of running nft.

A ruleset text is one transaction: completely or not at all. A :class:`Nftables` uses the network namespace of the
thread that created it. Calls block for a few hundred microseconds: call them in a thread.
"""

import ctypes
import ctypes.util
import errno
import os
import socket
import struct
from threading import Lock
from typing import Self

_PREFIX = "Error: "
_OUTPUT_HANDLE = 1 << 3  # NFT_CTX_OUTPUT_HANDLE
_OUTPUT_TERSE = 1 << 11  # NFT_CTX_OUTPUT_TERSE


class NftError(OSError):
    """nft's error for a transaction that the kernel or the parser refused; ``errno`` if it is known."""


def _load() -> ctypes.CDLL:
    library = ctypes.CDLL("libnftables.so.1", use_errno=True)
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    library.nft_ctx_new.argtypes, library.nft_ctx_new.restype = (ctypes.c_uint32,), pointer
    for name in ("nft_ctx_free", "nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = (pointer,)
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes, getattr(library, name).restype = (pointer,), text
    library.nft_run_cmd_from_buffer.argtypes = (pointer, text)
    library.nft_ctx_output_set_flags.argtypes = (pointer, ctypes.c_uint)
    return library


_library: ctypes.CDLL | None = None


class Nftables:
    """A connection to nftables of one network namespace. Threads may share it: calls are serialized.

    :raises OSError: libnftables is not installed.
    """

    def __init__(self) -> None:
        global _library  # loaded at the first use: an engine without firewall rules never maps it
        if _library is None:
            _library = _load()
        self._lock = Lock()
        self._context: int | None = _library.nft_ctx_new(0)
        if not self._context:
            raise OSError(ctypes.get_errno(), "nft_ctx_new")
        _library.nft_ctx_buffer_output(self._context)
        _library.nft_ctx_buffer_error(self._context)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            if self._context and _library:
                _library.nft_ctx_free(self._context)
                self._context = None

    def run(self, text: str, *, handles: bool = False, terse: bool = False) -> str:
        """Commits ``text`` as one transaction and returns its output.

        ``handles``: a listing shows the rules' handles; ``terse``: it omits the elements of sets.

        :raises NftError: refused; nothing has changed.
        """
        with self._lock:
            if self._context is None or _library is None:
                raise ValueError("closed")
            flags = (_OUTPUT_HANDLE if handles else 0) | (_OUTPUT_TERSE if terse else 0)
            _library.nft_ctx_output_set_flags(self._context, flags)
            failed = _library.nft_run_cmd_from_buffer(self._context, text.encode())
            error = (_library.nft_ctx_get_error_buffer(self._context) or b"").decode(errors="replace")
            output = (_library.nft_ctx_get_output_buffer(self._context) or b"").decode(errors="replace")
        if failed:
            raise _error(error)
        return output


def _error(text: str) -> NftError:
    line = next((line for line in text.splitlines() if _PREFIX in line), text.strip())
    message = line.partition(_PREFIX)[2] or line
    if "element does not exist" in message:  # the library's own message, for intervals
        return NftError(errno.ENOENT, message)
    for number in (2, 17, 16, 22, 1, 95, 28):  # ENOENT EEXIST EBUSY EINVAL EPERM EOPNOTSUPP ENOSPC
        if os.strerror(number) in message:
            return NftError(number, message)
    return NftError(0, message)


def generation() -> int:
    """The generation of this namespace's ruleset, which the kernel increments with every change."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 12) as sock:  # NETLINK_NETFILTER
        # NFNL_SUBSYS_NFTABLES (10), NFT_MSG_GETGEN (16), then struct nfgenmsg.
        sock.send(struct.pack("=IHHIIBBH", 20, (10 << 8) | 16, 1, 1, 0, 0, 0, 0))
        data = sock.recv(4096)
    kind = struct.unpack_from("=H", data, 4)[0]
    if kind == 2:  # NLMSG_ERROR
        code = -struct.unpack_from("=i", data, 16)[0]
        raise OSError(code, os.strerror(code))
    offset = 20
    while offset + 4 <= len(data):
        length, attribute = struct.unpack_from("=HH", data, offset)
        if attribute == 1 and length >= 8:  # NFTA_GEN_ID
            return int(struct.unpack_from(">I", data, offset + 4)[0])
        offset += max(4, (length + 3) & ~3)
    raise OSError(0, "nftables returned no generation")
