"""AES-256-CTR for packets that each have a fresh key (reference protocol 2.3, network-speed section 1).

Setting a cipher up costs more than encrypting 900 bytes. `cryptography` builds new objects for each packet; calling
libcrypto (the one Python's own ssl module uses) through ctypes with one context that is re-keyed is four times
cheaper. Where libcrypto 3 cannot be found, `cryptography` does the same work.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import threading
from collections.abc import Callable
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

MAX_DATA: Final = 4096
"""Longest input in bytes; a datagram is never longer than 2048."""

Crypt = Callable[[bytes, bytes, bytes], bytes]
"""(32-byte key, 16-byte counter block, data) -> data encrypted or decrypted, which is the same."""


def crypt_portable(key: bytes, iv: bytes, data: bytes) -> bytes:
    """The `cryptography` package's AES-256-CTR."""
    return Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor().update(data)


def _load_libcrypto() -> Any:
    """libcrypto with the prototypes used below, or None."""
    for name in ("libcrypto.so.3", ctypes.util.find_library("crypto") or "libcrypto.so"):
        try:
            lib = ctypes.PyDLL(name)  # PyDLL: the GIL stays, a call lasts 1 us
            lib.EVP_CIPHER_CTX_new.restype = ctypes.c_void_p
            lib.EVP_aes_256_ctr.restype = ctypes.c_void_p
            _ = lib.EVP_EncryptInit_ex, lib.EVP_EncryptUpdate
        except (OSError, AttributeError):
            continue
        return lib
    return None


class _Context(threading.local):
    """One EVP context a thread, re-keyed for each packet. Lives as long as its thread; threads here are few."""

    def __init__(self, lib: Any) -> None:
        made = lib.EVP_CIPHER_CTX_new()
        # Pointers are objects of ctypes made once: without prototypes they and `bytes` go through as they are, which is
        # quicker than converting each argument of each call.
        handle, cipher = ctypes.c_void_p(made), ctypes.c_void_p(lib.EVP_aes_256_ctr())
        if not (made and lib.EVP_EncryptInit_ex(handle, cipher, None, bytes(32), bytes(16))):
            raise MemoryError("EVP_CIPHER_CTX")
        self._out = ctypes.create_string_buffer(MAX_DATA)
        self._length = ctypes.c_int()
        init, update, written = lib.EVP_EncryptInit_ex, lib.EVP_EncryptUpdate, memoryview(self._out).cast("B")
        out, length = ctypes.c_void_p(ctypes.addressof(self._out)), ctypes.c_void_p(ctypes.addressof(self._length))

        def crypt(key: bytes, iv: bytes, data: bytes) -> bytes:
            size = len(data)
            if init(handle, None, None, key, iv) != 1 or update(handle, out, length, data, size) != 1:
                raise RuntimeError("libcrypto refused to encrypt")
            return written[:size].tobytes()

        self.crypt: Crypt = crypt


def _make_libcrypto() -> tuple[Crypt, Callable[[], Crypt]] | None:
    lib = _load_libcrypto()
    if lib is None:
        return None
    context = _Context(lib)

    def crypt(key: bytes, iv: bytes, data: bytes) -> bytes:
        if len(key) != 32 or len(iv) != 16 or len(data) > MAX_DATA:  # C reads and writes exactly these lengths
            raise ValueError("AES-256-CTR: wrong length of key, counter block or data")
        return context.crypt(key, iv, data)

    if crypt(bytes(32), bytes(16), bytes(40)) != crypt_portable(bytes(32), bytes(16), bytes(40)):
        return None
    return crypt, lambda: context.crypt


_found: Final = _make_libcrypto()
crypt_libcrypto: Final[Crypt | None] = _found and _found[0]
crypt: Final[Crypt] = crypt_libcrypto or crypt_portable


def unchecked() -> Crypt:
    """`crypt` for this thread and a loop over packets: the caller answers for the lengths of key, block and data."""
    return _found[1]() if _found else crypt_portable
