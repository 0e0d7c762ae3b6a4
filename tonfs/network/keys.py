"""Ed25519 identities: short ids, signatures, and X25519 agreement with the converted keys (reference 0.3, 2.1)."""

from __future__ import annotations

import base64
import contextlib
import os
import stat
from hashlib import sha256
from pathlib import Path
from typing import Final

from nacl import bindings
from nacl.exceptions import BadSignatureError, CryptoError

from ..errors import BadPacket, Damaged
from ..ids import AdnlId, Secret
from . import tl

_PUB_PREFIX: Final = tl.PUB_ED25519.to_bytes(4, "little")


def boxed_public(public_key: bytes) -> bytes:
    """`pub.ed25519` as a boxed TL object (36 bytes)."""
    if len(public_key) != 32:
        raise ValueError("an Ed25519 public key has 32 bytes")
    return _PUB_PREFIX + public_key


def short_id(public_key: bytes) -> AdnlId:
    """ADNL short id of an Ed25519 public key: sha256 of the boxed key."""
    return AdnlId(sha256(boxed_public(public_key)).digest())


def read_public(reader: tl.Reader) -> bytes:
    """Read a boxed PublicKey that must be Ed25519 (the only legal ADNL id). Raises BadPacket."""
    reader.expect(tl.PUB_ED25519)
    return reader.int256()


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Is this an Ed25519 signature of `message`? False for anything malformed."""
    if len(signature) != 64 or len(public_key) != 32:
        return False
    try:
        bindings.crypto_sign_open(signature + message, public_key)
    except (BadSignatureError, CryptoError, ValueError):
        return False
    return True


def x25519_public(public_key: bytes) -> bytes:
    """Montgomery form of an Ed25519 public key. Raises BadPacket when it is not a good point."""
    try:
        return bindings.crypto_sign_ed25519_pk_to_curve25519(public_key)
    except (CryptoError, ValueError, RuntimeError) as exc:
        raise BadPacket("not an Ed25519 public key") from exc


def adnl_text(adnl_id: bytes) -> str:
    """The 55-character text form of an ADNL id (reference 2.1)."""
    body = b"\x2d" + adnl_id
    return base64.b32encode(body + _crc16(body).to_bytes(2, "big")).decode().lower()[1:]


def _crc16(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = ((crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


class KeyPair:
    """An Ed25519 key pair. `repr` shows the short id only."""

    __slots__ = ("_secret", "_seed", "_x_private", "public_key", "short_id")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 32:
            raise ValueError("an Ed25519 seed has 32 bytes")
        self.public_key, self._secret = bindings.crypto_sign_seed_keypair(seed)
        self._seed = seed
        self._x_private = bindings.crypto_sign_ed25519_sk_to_curve25519(self._secret)
        self.short_id = short_id(self.public_key)

    @classmethod
    def from_seed(cls, seed: bytes) -> KeyPair:
        """Raises ValueError unless `seed` has 32 bytes."""
        return cls(seed)

    @classmethod
    def generate(cls) -> KeyPair:
        return cls(os.urandom(32))

    @property
    def seed(self) -> Secret:
        return Secret(self._seed)

    def sign(self, message: bytes) -> bytes:
        """64-byte Ed25519 signature."""
        return bindings.crypto_sign(message, self._secret)[:64]

    def x25519(self, peer_public: bytes) -> bytes:
        """32-byte shared secret with the owner of an Ed25519 public key. Raises BadPacket for bad points."""
        try:
            return bindings.crypto_scalarmult(self._x_private, x25519_public(peer_public))
        except (CryptoError, RuntimeError) as exc:
            raise BadPacket("X25519 with this key has no result") from exc

    def __repr__(self) -> str:
        return f"KeyPair({self.short_id.hex()[:16]}…)"


def load_or_create(path: Path) -> KeyPair:
    """The key pair whose 32-byte seed is in `path`; made there (mode 0600) when the file does not exist.

    Raises Damaged when the file is not a seed.
    """
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(os.urandom(32))
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)  # atomic, and never replaces a key that somebody else just made
        finally:
            temporary.unlink()
    with path.open("rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            os.fchmod(file.fileno(), 0o600)
        seed = file.read(33)
    if len(seed) != 32:
        raise Damaged(f"{path} is not a key file: it must hold 32 bytes")
    return KeyPair(seed)
