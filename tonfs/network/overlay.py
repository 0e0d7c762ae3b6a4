"""Overlays of bags: their ids, signed nodes, who is a member, and the queries every member answers.

One ADNL endpoint carries many bags; every query starts with the id of the overlay it belongs to (reference
protocol 4.1). A *node* is a member's signed statement "I am in this overlay, as of `version`" (unix time). Nodes
travel in DHT records and in `overlay.getRandomPeers`; what comes from others counts only with a good signature and
a fresh version. No I/O here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from ..errors import BadPacket
from ..ids import AdnlId, BagId
from . import tl
from .keys import boxed_public, read_public, short_id, verify

NODE_SIZE: Final = 140
"""Bytes of a bare `overlay.node` with an Ed25519 id."""
MAX_NODES: Final = 64
"""Most nodes accepted in one `overlay.nodes`."""
RECORD_NODES: Final = 5
"""As many nodes fit a DHT value of 768 bytes (reference 4.3)."""
ANSWER_NODES: Final = 8
"""Nodes in an answer to getRandomPeers, ours included."""
MEMBERS_MAX: Final = 300
FUTURE: Final = 60
"""Seconds that a version may lie ahead of our clock."""
FORGET: Final = 3600
"""Seconds after which a member that was not heard of again is forgotten. C++ believes a node only when 600 s old at
most, but Go signs that of a seeder anew only every 10 minutes (reference 4.2, 4.5), and we want to find it."""

_PREFIX: Final = tl.OVERLAY_QUERY.to_bytes(4, "little")
PONG: Final = tl.OVERLAY_PONG.to_bytes(4, "little")
PING: Final = tl.OVERLAY_PING.to_bytes(4, "little")


def overlay_id(bag: BagId) -> bytes:
    """32 bytes: sha256 of boxed `pub.overlay{name = BagID}` (reference 4.1)."""
    return sha256(tl.Writer(tl.PUB_OVERLAY).bytes_(bag).done()).digest()


def wrap(overlay: bytes, query: bytes) -> bytes:
    """Put a boxed query into its overlay."""
    return _PREFIX + overlay + query


def unwrap(data: bytes) -> tuple[bytes, bytes]:
    """(overlay id, boxed inner query) of `overlay.query` or `overlay.queryWithExtra`. Raises BadPacket.

    A certificate in the extra is not accepted: bags are public overlays and nobody needs one.
    """
    reader = tl.Reader(data)
    tag = reader.u32()
    if tag not in (tl.OVERLAY_QUERY, tl.OVERLAY_QUERY_EXTRA):
        raise BadPacket(f"not an overlay query: {tag:08x}")
    overlay = reader.int256()
    if tag == tl.OVERLAY_QUERY_EXTRA and reader.u32() != 0:
        raise BadPacket("overlay query with flags")
    return overlay, reader.rest()


@dataclass(frozen=True)
class OverlayNode:
    """`overlay.node`: a member's Ed25519 key, the overlay, version = unix time of signing, 64-byte signature."""

    public_key: bytes
    overlay: bytes
    version: int
    signature: bytes

    @property
    def id(self) -> AdnlId:
        return short_id(self.public_key)

    def valid(self) -> bool:
        """Is the signature right? Says nothing about the age."""
        return verify(self.public_key, _to_sign(self.id, self.overlay, self.version), self.signature)

    def fresh(self, now: float) -> bool:
        """Does it count at this unix time? One signed ahead of time would outlive all honest ones."""
        return now - FORGET <= self.version <= now + FUTURE

    def pack(self) -> bytes:
        """Bare TL, 140 bytes."""
        writer = tl.Writer().raw(boxed_public(self.public_key)).int256(self.overlay)
        return writer.i32(self.version).bytes_(self.signature).done()

    @classmethod
    def read(cls, reader: tl.Reader) -> OverlayNode:
        """Read a bare node. Raises BadPacket."""
        key = read_public(reader)
        return cls(key, reader.int256(), reader.i32(), reader.bytes_(64))


def _to_sign(node_id: AdnlId, overlay: bytes, version: int) -> bytes:
    return tl.Writer(tl.OVERLAY_NODE_TO_SIGN).int256(node_id).int256(overlay).i32(version).done()


def sign_node(public_key: bytes, sign: Callable[[bytes], bytes], overlay: bytes, version: int) -> OverlayNode:
    """Our own node; `sign` makes a 64-byte Ed25519 signature with the key that belongs to `public_key`."""
    return OverlayNode(public_key, overlay, version, sign(_to_sign(short_id(public_key), overlay, version)))


def pack_nodes(nodes: Iterable[OverlayNode]) -> bytes:
    """Boxed `overlay.nodes`: DHT value and answer to getRandomPeers."""
    return tl.Writer(tl.OVERLAY_NODES).vector([node.pack() for node in nodes]).done()


def _read_vector(reader: tl.Reader, limit: int) -> list[OverlayNode]:
    return [OverlayNode.read(reader) for _ in range(reader.count(limit, NODE_SIZE))]


def parse_nodes(data: bytes, limit: int = MAX_NODES) -> list[OverlayNode]:
    """Boxed `overlay.nodes`, signatures not looked at. Raises BadPacket."""
    reader = tl.Reader(data)
    reader.expect(tl.OVERLAY_NODES)
    nodes = _read_vector(reader, limit)
    reader.end()
    return nodes


def pack_get_random_peers(nodes: Iterable[OverlayNode]) -> bytes:
    """Boxed `overlay.getRandomPeers`; the nodes are those we tell the other side about."""
    return tl.Writer(tl.OVERLAY_GET_RANDOM_PEERS).vector([node.pack() for node in nodes]).done()


def parse_get_random_peers(data: bytes, limit: int = MAX_NODES) -> list[OverlayNode]:
    """The nodes a getRandomPeers brings along. Raises BadPacket."""
    reader = tl.Reader(data)
    reader.expect(tl.OVERLAY_GET_RANDOM_PEERS)
    nodes = _read_vector(reader, limit)
    reader.end()
    return nodes


class Members:
    """Who is in one overlay, as far as we were told. Bounded; times are unix seconds given by the caller."""

    def __init__(self, overlay: bytes, own: AdnlId) -> None:
        self._overlay = overlay
        self._own = own
        self._nodes: dict[AdnlId, OverlayNode] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, peer: AdnlId) -> bool:
        return peer in self._nodes

    def learn(self, nodes: Iterable[OverlayNode], now: int) -> list[OverlayNode]:
        """Take over what is valid and newer than what we have; returns members not known before.

        Nodes of other overlays, from the future, over an hour old, or wrongly signed are ignored: a list may be
        partly stale, or partly a lie, and still be useful.
        """
        new = []
        for node in nodes:
            if node.overlay != self._overlay or not node.fresh(now):
                continue
            node_id = node.id
            known = self._nodes.get(node_id)
            if node_id == self._own or (known is not None and known.version >= node.version) or not node.valid():
                continue
            self._nodes[node_id] = node
            if known is None:
                new.append(node)
        self._trim(now)
        return [node for node in new if node.id in self._nodes]

    def _trim(self, now: int) -> None:
        for node_id in [i for i, node in self._nodes.items() if not node.fresh(now)]:
            del self._nodes[node_id]
        if len(self._nodes) > MEMBERS_MAX:
            by_age = sorted(self._nodes.values(), key=lambda node: node.version, reverse=True)
            self._nodes = {node.id: node for node in by_age[:MEMBERS_MAX]}

    def __iter__(self) -> Iterator[OverlayNode]:
        return iter(list(self._nodes.values()))

    def sample(self, count: int, rng: random.Random) -> list[OverlayNode]:
        """Up to `count` members by chance, for an answer to getRandomPeers."""
        nodes = list(self._nodes.values())
        return rng.sample(nodes, min(count, len(nodes)))
