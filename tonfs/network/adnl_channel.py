"""An ADNL channel: symmetric keys both ways between two identities (reference protocol 2.5)."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from . import tl
from .adnl_packet import seal, unseal
from .keys import KeyPair

_AES_PREFIX: Final = tl.PUB_AES.to_bytes(4, "little")


def channel_id(key: bytes) -> bytes:
    """Id of the direction that is encrypted with `key`: the short id of `pub.aes`."""
    return sha256(_AES_PREFIX + key).digest()


class Channel:
    """Derived from our channel key pair and the peer's channel public key. Raises BadPacket for a bad key."""

    __slots__ = ("in_id", "in_key", "out_id", "out_key", "peer_date", "peer_public", "ready")

    def __init__(self, own: KeyPair, peer_public: bytes, peer_date: int, own_id: bytes, peer_id: bytes) -> None:
        secret = own.x25519(peer_public)
        reverse = secret[::-1]
        if own_id < peer_id:
            self.in_key, self.out_key = secret, reverse
        elif own_id > peer_id:
            self.in_key, self.out_key = reverse, secret
        else:
            self.in_key = self.out_key = secret
        self.in_id = channel_id(self.in_key)
        self.out_id = channel_id(self.out_key)
        self.peer_public = peer_public
        self.peer_date = peer_date
        self.ready = False
        """The peer is known to have derived the channel too: everything may go through it."""

    def seal(self, plain: bytes) -> bytes:
        """A channel datagram."""
        return self.out_id + seal(self.out_key, plain)

    def open(self, datagram: bytes) -> bytes:
        """The plain bytes of a datagram that begins with `in_id`. Raises BadPacket."""
        return unseal(self.in_key, datagram, 32)
