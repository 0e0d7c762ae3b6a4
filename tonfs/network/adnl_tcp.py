"""ADNL over TCP: what lite servers and lite clients speak below TL (reference protocol 8.3, devnet 2.1).

    client -> server   256 bytes: server short id 32 | client ephemeral Ed25519 key 32 | sha256(params) 32 | params' 160
    both ways          one AES-256-CTR stream each; frames: u32 length = 64 + payload | nonce 32 | payload | sha256 32

`params` are 160 random bytes, named from the client's view: receive key [0:32], send key [32:64], receive iv
[64:80], send iv [80:96]; `params'` are params under AES-CTR with a key made from X25519 and the checksum.
The server confirms with a frame that has an empty payload.

Pure: bytes in, bytes out; both roles, so that tests can drive either side.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from ..errors import BadPacket
from .keys import KeyPair, short_id

HELLO_SIZE: Final = 256
PARAMS_SIZE: Final = 160
MAX_FRAME: Final = 1 << 24
"""Largest value of a frame's length field that any known client accepts."""
MAX_PAYLOAD: Final = MAX_FRAME - 64

_LENGTH: Final = struct.Struct("<I")


def _ctr(key: bytes, iv: bytes) -> CipherContext:
    return Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor()


def _hello_cipher(secret: bytes, checksum: bytes) -> CipherContext:
    return _ctr(secret[0:16] + checksum[16:32], checksum[0:4] + secret[20:32])


class FrameCodec:
    """One side of a connection after the hello. `frame` makes bytes to send; `feed` takes bytes received.

    `max_frame` bounds the length field of frames received, and so the memory a peer can make us hold.
    """

    def __init__(
        self, *, send_key: bytes, send_iv: bytes, receive_key: bytes, receive_iv: bytes, max_frame: int = MAX_FRAME
    ) -> None:
        self._send = _ctr(send_key, send_iv)
        self._receive = _ctr(receive_key, receive_iv)
        self._buffer = bytearray()
        self._max_frame = min(max_frame, MAX_FRAME)

    def frame(self, payload: bytes) -> bytes:
        """The next frame of the outgoing stream; send frames in the order they were made. Raises BadPacket."""
        if len(payload) > MAX_PAYLOAD:
            raise BadPacket(f"A lite server frame of {len(payload)} bytes is over the limit of {MAX_PAYLOAD}.")
        nonce = os.urandom(32)
        checksum = hashlib.sha256(nonce + payload).digest()
        return self._send.update(_LENGTH.pack(64 + len(payload)) + nonce + payload + checksum)

    def feed(self, data: bytes) -> list[bytes]:
        """Payloads that are complete now. Raises BadPacket for a wrong length or checksum; then close."""
        self._buffer += self._receive.update(data)
        payloads: list[bytes] = []
        while len(self._buffer) >= 4:
            size: int = _LENGTH.unpack_from(self._buffer)[0]
            if not 64 <= size <= self._max_frame:
                raise BadPacket(f"A lite server frame announces {size} bytes (64 to {self._max_frame} are allowed).")
            if len(self._buffer) < 4 + size:
                break
            body = bytes(self._buffer[4 : 4 + size])
            del self._buffer[: 4 + size]
            if hashlib.sha256(body[:-32]).digest() != body[-32:]:
                raise BadPacket("A lite server frame has a wrong checksum.")
            payloads.append(body[32:-32])
        return payloads


def accept_hello(
    hello: bytes, find_key: Callable[[bytes], KeyPair | None], *, max_frame: int = MAX_FRAME
) -> FrameCodec:
    """Server side: the codec for a client that sent these 256 bytes.

    `find_key` gives the key pair with this short id, or None. Raises BadPacket.
    """
    if len(hello) != HELLO_SIZE:
        raise BadPacket(f"A lite server hello has {len(hello)} bytes, not {HELLO_SIZE}.")
    key = find_key(hello[:32])
    if key is None:
        raise BadPacket("A lite server hello is for another server.")
    checksum = hello[64:96]
    params = _hello_cipher(key.x25519(hello[32:64]), checksum).update(hello[96:])
    if hashlib.sha256(params).digest() != checksum:
        raise BadPacket("A lite server hello has a wrong checksum.")
    return FrameCodec(
        send_key=params[0:32],
        send_iv=params[64:80],
        receive_key=params[32:64],
        receive_iv=params[80:96],
        max_frame=max_frame,
    )


def make_hello(key: KeyPair, server_public_key: bytes, *, max_frame: int = MAX_FRAME) -> tuple[bytes, FrameCodec]:
    """Client side: the hello to send and the codec for what follows. `key` should be fresh for each connection."""
    params = os.urandom(PARAMS_SIZE)
    checksum = hashlib.sha256(params).digest()
    sealed = _hello_cipher(key.x25519(server_public_key), checksum).update(params)
    codec = FrameCodec(
        send_key=params[32:64],
        send_iv=params[80:96],
        receive_key=params[0:32],
        receive_iv=params[64:80],
        max_frame=max_frame,
    )
    return short_id(server_public_key) + key.public_key + checksum + sealed, codec
