"""Queries and answers of the DHT as bytes (reference protocol 4.3). Parsers raise BadPacket and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import BadPacket
from . import tl
from .dht_types import DhtNode, DhtValue

MAX_NODES: Final = 32
"""Nodes accepted in one answer; servers send at most 10."""


@dataclass(frozen=True)
class Ping:
    random_id: int


@dataclass(frozen=True)
class FindNode:
    key: bytes
    k: int


@dataclass(frozen=True)
class FindValue:
    key: bytes
    k: int


@dataclass(frozen=True)
class Store:
    value: DhtValue


@dataclass(frozen=True)
class GetSignedAddressList:
    pass


Query = Ping | FindNode | FindValue | Store | GetSignedAddressList


def pack_query(query: Query, sender: DhtNode | None = None) -> bytes:
    """Boxed query; a DHT server introduces itself with the `dht.query` prefix."""
    prefix = b"" if sender is None else tl.Writer(tl.DHT_QUERY).raw(sender.bare()).done()
    match query:
        case Ping(random_id):
            body = tl.Writer(tl.DHT_PING).u64(random_id)
        case FindNode(key, k):
            body = tl.Writer(tl.DHT_FIND_NODE).int256(key).i32(k)
        case FindValue(key, k):
            body = tl.Writer(tl.DHT_FIND_VALUE).int256(key).i32(k)
        case Store(value):
            body = tl.Writer(tl.DHT_STORE).raw(value.bare())
        case GetSignedAddressList():
            body = tl.Writer(tl.DHT_GET_SIGNED_ADDRESS_LIST)
    return prefix + body.done()


def parse_query(data: bytes) -> tuple[DhtNode | None, Query]:
    """(node that introduces itself with the prefix or None, query). The node's signature is not checked here."""
    reader = tl.Reader(data)
    sender = None
    tag = reader.u32()
    if tag == tl.DHT_QUERY:
        sender = DhtNode.read(reader)
        tag = reader.u32()
    query: Query
    if tag == tl.DHT_PING:
        query = Ping(reader.u64())
    elif tag == tl.DHT_FIND_NODE:
        query = FindNode(reader.int256(), reader.i32())
    elif tag == tl.DHT_FIND_VALUE:
        query = FindValue(reader.int256(), reader.i32())
    elif tag == tl.DHT_STORE:
        query = Store(DhtValue.read(reader))
    elif tag == tl.DHT_GET_SIGNED_ADDRESS_LIST:
        query = GetSignedAddressList()
    else:
        raise BadPacket(f"not a DHT query: {tag:08x}")
    reader.end()
    return sender, query


_QUERIES: Final = frozenset(
    {
        tl.DHT_QUERY,
        tl.DHT_PING,
        tl.DHT_FIND_NODE,
        tl.DHT_FIND_VALUE,
        tl.DHT_STORE,
        tl.DHT_GET_SIGNED_ADDRESS_LIST,
    }
)

STORED: Final = tl.Writer(tl.DHT_STORED).done()


def _bare_nodes(nodes: Sequence[DhtNode]) -> bytes:
    return tl.Writer().vector([node.bare() for node in nodes]).done()


def _read_nodes(reader: tl.Reader) -> list[DhtNode]:
    return [DhtNode.read(reader) for _ in range(reader.count(MAX_NODES, element=64))]


def pack_pong(random_id: int) -> bytes:
    return tl.Writer(tl.DHT_PONG).u64(random_id).done()


def parse_pong(data: bytes) -> int:
    reader = tl.Reader(data)
    reader.expect(tl.DHT_PONG)
    number = reader.u64()
    reader.end()
    return number


def pack_nodes(nodes: Sequence[DhtNode]) -> bytes:
    """Answer to findNode."""
    return tl.Writer(tl.DHT_NODES).raw(_bare_nodes(nodes)).done()


def parse_nodes(data: bytes) -> list[DhtNode]:
    reader = tl.Reader(data)
    reader.expect(tl.DHT_NODES)
    nodes = _read_nodes(reader)
    reader.end()
    return nodes


def pack_value_found(value: DhtValue) -> bytes:
    """The value inside is boxed, unlike in `dht.store`."""
    return tl.Writer(tl.DHT_VALUE_FOUND).u32(tl.DHT_VALUE).raw(value.bare()).done()


def pack_value_not_found(nodes: Sequence[DhtNode]) -> bytes:
    return tl.Writer(tl.DHT_VALUE_NOT_FOUND).raw(_bare_nodes(nodes)).done()


def parse_value_result(data: bytes) -> DhtValue | list[DhtNode]:
    """Answer to findValue: the value (unchecked), or nearer nodes."""
    reader = tl.Reader(data)
    tag = reader.u32()
    result: DhtValue | list[DhtNode]
    if tag == tl.DHT_VALUE_FOUND:
        reader.expect(tl.DHT_VALUE)
        result = DhtValue.read(reader)
    elif tag == tl.DHT_VALUE_NOT_FOUND:
        result = _read_nodes(reader)
    else:
        raise BadPacket(f"not an answer to findValue: {tag:08x}")
    reader.end()
    return result


def parse_node(data: bytes) -> DhtNode:
    """Answer to getSignedAddressList (boxed, unchecked)."""
    reader = tl.Reader(data)
    reader.expect(tl.DHT_NODE)
    node = DhtNode.read(reader)
    reader.end()
    return node
