"""Objects of the DHT: nodes, keys, values; how they are signed, checked and merged (reference protocol 4.3, 4.4).

Parsing keeps what a signature covers byte for byte. An object that was read is only *well formed*; `check` says
whether it may be believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import Final, Protocol

from ..errors import BadPacket
from ..ids import AdnlId, BagId, ProviderKey
from . import tl
from .address import AddressList
from .api import UdpAddress
from .keys import boxed_public, read_public, short_id, verify
from .overlay import RECORD_NODES, OverlayNode, pack_nodes, parse_nodes

MAX_VALUE: Final = 768
MAX_NAME: Final = 127
MAX_INDEX: Final = 15
MAX_TTL: Final = 3660
"""Seconds from now; clients usually ask for 3600."""
MAX_K: Final = 10
"""Most nodes in an answer."""

NAME_ADDRESS: Final = b"address"
NAME_NODES: Final = b"nodes"
NAME_PROVIDER: Final = b"storage-provider"

RULES: Final = (tl.DHT_RULE_SIGNATURE, tl.DHT_RULE_ANYBODY, tl.DHT_RULE_OVERLAY_NODES)


class Signer(Protocol):
    """A key pair or an ADNL endpoint."""

    @property
    def public_key(self) -> bytes: ...

    def sign(self, message: bytes) -> bytes: ...


@dataclass(frozen=True)
class DhtNode:
    """`dht.node`. `unsigned` is its bare TL up to the signature, exactly as it came."""

    public_key: bytes
    addresses: AddressList
    version: int
    signature: bytes
    unsigned: bytes

    @cached_property
    def id(self) -> AdnlId:
        return short_id(self.public_key)

    @property
    def address(self) -> UdpAddress | None:
        return self.addresses.first

    @classmethod
    def create(cls, signer: Signer, addresses: AddressList, version: int) -> DhtNode:
        """Our own entry. `version` is the unix time of signing."""
        return cls._assemble(signer.public_key, addresses, version, b"")._signed(signer)

    @classmethod
    def unverified(cls, public_key: bytes, addresses: AddressList, version: int, signature: bytes) -> DhtNode:
        """From parts, as a global config gives them."""
        return cls._assemble(public_key, addresses, version, signature)

    @classmethod
    def _assemble(cls, public_key: bytes, addresses: AddressList, version: int, signature: bytes) -> DhtNode:
        unsigned = tl.Writer().raw(boxed_public(public_key)).raw(addresses.bare()).i32(version).done()
        return cls(public_key, addresses, version, signature, unsigned)

    def _signed(self, signer: Signer) -> DhtNode:
        signature = signer.sign(self._to_sign(b""))
        return DhtNode(self.public_key, self.addresses, self.version, signature, self.unsigned)

    def _to_sign(self, signature_field: bytes) -> bytes:
        return tl.Writer(tl.DHT_NODE).raw(self.unsigned).bytes_(signature_field).done()

    def check(self) -> bool:
        """Signed by its own key, with a version and an address. A network id before the signature is accepted."""
        if self.version == 0 or not self.addresses.addresses or len(self.signature) not in (64, 68):
            return False
        network, signature = self.signature[:-64], self.signature[-64:]
        return verify(self.public_key, self._to_sign(network), signature)

    def bare(self) -> bytes:
        return self.unsigned + tl.pack_bytes(self.signature)

    def boxed(self) -> bytes:
        return tl.Writer(tl.DHT_NODE).raw(self.bare()).done()

    @classmethod
    def read(cls, reader: tl.Reader) -> DhtNode:
        """Read a bare node. Raises BadPacket."""
        start = reader.pos
        public_key = read_public(reader)
        addresses = AddressList.read(reader)
        version = reader.i32()
        length, reader.pos = reader.pos - start, start
        unsigned = reader.raw(length)
        return cls(public_key, addresses, version, reader.bytes_(128), unsigned)


@lru_cache(maxsize=4096)
def trusted(node: DhtNode) -> bool:
    """`node.check()`, remembered: the same nodes come in every answer."""
    return node.check()


@dataclass(frozen=True)
class DhtKey:
    """`dht.key`: owner's short id, name, index."""

    owner_id: bytes
    name: bytes
    index: int = 0

    @cached_property
    def id(self) -> bytes:
        """32 bytes: where in the DHT the value lives."""
        return sha256(tl.Writer(tl.DHT_KEY).raw(self.bare()).done()).digest()

    def bare(self) -> bytes:
        return tl.Writer().int256(self.owner_id).bytes_(self.name).i32(self.index).done()

    @classmethod
    def read(cls, reader: tl.Reader) -> DhtKey:
        """Read a bare key within the limits. Raises BadPacket."""
        key = cls(reader.int256(), reader.bytes_(MAX_NAME), reader.i32())
        if not key.name or not 0 <= key.index <= MAX_INDEX:
            raise BadPacket("DHT key without a name or with a bad index")
        return key


def address_key(adnl_id: AdnlId) -> DhtKey:
    return DhtKey(adnl_id, NAME_ADDRESS)


def overlay_owner(bag_id: BagId) -> bytes:
    """Boxed `pub.overlay{name = BagID}`: owner of the bag's membership record."""
    return tl.Writer(tl.PUB_OVERLAY).bytes_(bag_id).done()


def overlay_key(bag_id: BagId) -> DhtKey:
    return DhtKey(sha256(overlay_owner(bag_id)).digest(), NAME_NODES)


def provider_record_key(provider: ProviderKey) -> DhtKey:
    return DhtKey(short_id(provider), NAME_PROVIDER)


@dataclass(frozen=True)
class DhtValue:
    """`dht.value` with its key description. `owner`: boxed PublicKey; `ttl`: unix time when it ends."""

    key: DhtKey
    owner: bytes
    rule: int
    key_signature: bytes
    value: bytes
    ttl: int
    signature: bytes

    # Bytes.

    def _description(self, signature: bytes) -> bytes:
        writer = tl.Writer().raw(self.key.bare()).raw(self.owner).u32(self.rule)
        return writer.bytes_(signature).done()

    def _bare(self, signature: bytes) -> bytes:
        writer = tl.Writer().raw(self._description(self.key_signature))
        return writer.bytes_(self.value).u32(self.ttl).bytes_(signature).done()

    def bare(self) -> bytes:
        return self._bare(self.signature)

    @classmethod
    def read(cls, reader: tl.Reader) -> DhtValue:
        """Read a bare value. Raises BadPacket."""
        key = DhtKey.read(reader)
        owner = _read_owner(reader)
        rule = reader.u32()
        if rule not in RULES:
            raise BadPacket(f"unknown DHT update rule {rule:08x}")
        return cls(key, owner, rule, reader.bytes_(128), reader.bytes_(MAX_VALUE), reader.u32(), reader.bytes_(128))

    # Belief.

    def check(self, now: float) -> None:
        """Everything of reference 4.3 except expiry. Raises BadPacket with the reason."""
        if sha256(self.owner).digest() != self.key.owner_id:
            raise BadPacket("DHT key does not belong to its owner")
        if len(self.value) > MAX_VALUE:
            raise BadPacket("DHT value is too long")
        if self.ttl > now + MAX_TTL:
            raise BadPacket("DHT value wants to live too long")
        if self.rule == tl.DHT_RULE_SIGNATURE:
            self._check_signatures()
        elif self.key_signature or self.signature:
            raise BadPacket("DHT value of a rule without signatures has one")
        elif self.rule == tl.DHT_RULE_OVERLAY_NODES:
            self._check_nodes()
        elif not self.owner.startswith(_UNENC):
            raise BadPacket("DHT value that anybody may write needs an owner without a key")

    def _check_signatures(self) -> None:
        if not self.owner.startswith(_ED25519):
            raise BadPacket("signed DHT value without an Ed25519 owner")
        public_key = self.owner[4:]
        described = tl.Writer(tl.DHT_KEY_DESCRIPTION).raw(self._description(b"")).done()
        if not verify(public_key, described, self.key_signature):
            raise BadPacket("wrong signature of a DHT key description")
        if not verify(public_key, tl.Writer(tl.DHT_VALUE).raw(self._bare(b"")).done(), self.signature):
            raise BadPacket("wrong signature of a DHT value")

    def _check_nodes(self) -> None:
        if not self.owner.startswith(_OVERLAY):
            raise BadPacket("overlay record without an overlay as owner")
        for node in parse_nodes(self.value):
            if node.overlay != self.key.owner_id or not node.valid():
                raise BadPacket("overlay record with a node that does not belong there")

    def expired(self, now: float) -> bool:
        return self.ttl <= now

    def merged(self, newer: DhtValue, now: float) -> DhtValue:
        """What a node keeps when `newer` (checked, same key) arrives and it has this value. Stale members go."""
        if self.rule == tl.DHT_RULE_OVERLAY_NODES and newer.rule == self.rule:
            both = [*parse_nodes(newer.value), *parse_nodes(self.value)]
            nodes = merge_nodes([[node for node in both if node.fresh(now)]])
            return DhtValue(self.key, self.owner, self.rule, b"", pack_nodes(nodes), max(self.ttl, newer.ttl), b"")
        if self.rule == tl.DHT_RULE_SIGNATURE and newer.rule == self.rule:
            return newer if newer.ttl > self.ttl else self
        return newer if newer.rule == self.rule else self


_ED25519: Final = tl.PUB_ED25519.to_bytes(4, "little")
_OVERLAY: Final = tl.PUB_OVERLAY.to_bytes(4, "little")
_UNENC: Final = tl.PUB_UNENC.to_bytes(4, "little")


def _read_owner(reader: tl.Reader) -> bytes:
    kind = reader.u32()
    if kind in (tl.PUB_ED25519, tl.PUB_AES):
        return tl.Writer(kind).int256(reader.int256()).done()
    if kind in (tl.PUB_OVERLAY, tl.PUB_UNENC):
        return tl.Writer(kind).bytes_(reader.bytes_(MAX_VALUE)).done()
    raise BadPacket(f"unknown kind of public key {kind:08x}")


def signed_value(signer: Signer, name: bytes, value: bytes, ttl: int) -> DhtValue:
    """A value under rule `signature`, owned and signed by `signer`."""
    key = DhtKey(short_id(signer.public_key), name)
    draft = DhtValue(key, boxed_public(signer.public_key), tl.DHT_RULE_SIGNATURE, b"", value, ttl, b"")
    described = tl.Writer(tl.DHT_KEY_DESCRIPTION).raw(draft._description(b"")).done()
    draft = DhtValue(key, draft.owner, draft.rule, signer.sign(described), value, ttl, b"")
    signature = signer.sign(tl.Writer(tl.DHT_VALUE).raw(draft._bare(b"")).done())
    return DhtValue(key, draft.owner, draft.rule, draft.key_signature, value, ttl, signature)


def overlay_value(bag_id: BagId, nodes: Sequence[OverlayNode], ttl: int) -> DhtValue:
    """The bag's membership record with these nodes (at most RECORD_NODES)."""
    owner = overlay_owner(bag_id)
    value = pack_nodes(nodes[:RECORD_NODES])
    return DhtValue(overlay_key(bag_id), owner, tl.DHT_RULE_OVERLAY_NODES, b"", value, ttl, b"")


def merge_nodes(groups: Iterable[Iterable[OverlayNode]], limit: int = RECORD_NODES) -> list[OverlayNode]:
    """One entry per ADNL key (its newest), newest first, at most `limit`. Signatures are not looked at."""
    newest: dict[bytes, OverlayNode] = {}
    for group in groups:
        for node in group:
            known = newest.get(node.public_key)
            if known is None or known.version < node.version:
                newest[node.public_key] = node
    return sorted(newest.values(), key=lambda node: (-node.version, node.public_key))[:limit]
