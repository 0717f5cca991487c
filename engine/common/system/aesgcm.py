"""AES-256-GCM (NIST SP 800-38D) by the libcrypto that Python's module ``ssl`` uses.

The package cryptography brings a libcrypto of its own, which adds up to 7 MiB to the process that loads it. It does the
work where Python is linked with a libcrypto whose functions can't be looked up.
"""

import _ssl
import ctypes
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
#: OpenSSL's default, for which GCM is made.
NONCE_BYTES = 12
TAG_BYTES = 16

# EVP_CTRL_GCM_GET_TAG and EVP_CTRL_GCM_SET_TAG of openssl/evp.h.
_GET_TAG, _SET_TAG = 0x10, 0x11


def encrypt(key: bytes, nonce: bytes, data: bytes) -> bytes:
    """The encrypted data and the tag. ``nonce``: another one for each call with the same key.

    :raises ValueError: the key or the nonce has another length.
    """
    _check_lengths(key, nonce)
    library = _library()
    if library is None:
        return _substitute(key).encrypt(nonce, data, None)
    with _Cipher(library, key, nonce, encrypts=True) as cipher:
        return cipher.update(data) + cipher.finish() + cipher.tag()


def decrypt(key: bytes, nonce: bytes, sealed: bytes) -> bytes:
    """The reverse of ``encrypt``.

    :raises ValueError: another key or nonce was used, the data was changed, or a length is wrong.
    """
    if len(sealed) < TAG_BYTES:
        raise ValueError("the tag is missing")
    _check_lengths(key, nonce)
    library = _library()
    if library is None:
        from cryptography.exceptions import InvalidTag

        try:
            return _substitute(key).decrypt(nonce, sealed, None)
        except InvalidTag:
            raise ValueError("AES-256-GCM failed") from None
    with _Cipher(library, key, nonce, encrypts=False) as cipher:
        data = cipher.update(sealed[:-TAG_BYTES])
        cipher.expect(sealed[-TAG_BYTES:])
        return data + cipher.finish()


def _check_lengths(key: bytes, nonce: bytes) -> None:
    if len(key) != KEY_BYTES or len(nonce) != NONCE_BYTES:
        raise ValueError("wrong length of a key or a nonce")


def _substitute(key: bytes) -> "AESGCM":
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


class _Cipher:
    """An EVP_CIPHER_CTX; see EVP_EncryptInit(3)."""

    def __init__(self, library: ctypes.CDLL, key: bytes, nonce: bytes, *, encrypts: bool) -> None:
        self._library = library
        self._key, self._nonce, self._encrypts = key, nonce, encrypts
        self._context: int | None = None

    def __enter__(self) -> "_Cipher":
        self._context = self._library.EVP_CIPHER_CTX_new()
        if not self._context:
            raise MemoryError
        cipher, encrypts = self._library.EVP_aes_256_gcm(), int(self._encrypts)
        _check(self._library.EVP_CipherInit_ex(self._context, cipher, None, self._key, self._nonce, encrypts))
        return self

    def __exit__(self, *_: object) -> None:
        self._library.EVP_CIPHER_CTX_free(self._context)

    def update(self, data: bytes) -> bytes:
        out, length = ctypes.create_string_buffer(len(data)), ctypes.c_int()
        _check(self._library.EVP_CipherUpdate(self._context, out, ctypes.byref(length), data, len(data)))
        return out.raw[: length.value]

    def finish(self) -> bytes:
        """:raises ValueError: the data is not what the tag of ``expect`` belongs to."""
        out, length = ctypes.create_string_buffer(TAG_BYTES), ctypes.c_int()
        _check(self._library.EVP_CipherFinal_ex(self._context, out, ctypes.byref(length)))
        return out.raw[: length.value]

    def tag(self) -> bytes:
        out = ctypes.create_string_buffer(TAG_BYTES)
        _check(self._library.EVP_CIPHER_CTX_ctrl(self._context, _GET_TAG, TAG_BYTES, out))
        return out.raw

    def expect(self, tag: bytes) -> None:
        _check(self._library.EVP_CIPHER_CTX_ctrl(self._context, _SET_TAG, TAG_BYTES, tag))


def _check(result: int) -> None:
    if result <= 0:
        raise ValueError("AES-256-GCM failed")


@cache
def _library() -> ctypes.CDLL | None:
    """None: it has no such functions."""
    # A look-up in a library covers what it is linked with: this finds the same libcrypto, whatever its version.
    library = ctypes.CDLL(getattr(_ssl, "__file__", None))
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, result, arguments in (
        ("EVP_aes_256_gcm", pointer, []),
        ("EVP_CIPHER_CTX_new", pointer, []),
        ("EVP_CIPHER_CTX_free", None, [pointer]),
        ("EVP_CIPHER_CTX_ctrl", number, [pointer, number, number, pointer]),
        ("EVP_CipherInit_ex", number, [pointer, pointer, pointer, text, text, number]),
        ("EVP_CipherUpdate", number, [pointer, pointer, pointer, text, number]),
        ("EVP_CipherFinal_ex", number, [pointer, pointer, pointer]),
    ):
        function = getattr(library, name, None)
        if function is None:
            return None
        function.restype, function.argtypes = result, arguments
    return library
