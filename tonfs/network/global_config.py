"""`global.config.json`: the file by which TON software finds a network (reference devnet section 4).

Only the DHT nodes and the lite servers are read here; parts that are missing are empty, parts that we do not know are
left alone. `ip` is a signed 32-bit number in the file (both signs are read), keys and signatures are base64.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..errors import BadData, NotFound
from .address import AddressList, pack_ip, unpack_ip, usable
from .api import UdpAddress
from .dht_types import DhtNode

MAX_SIZE: Final = 8 << 20
MAX_ITEMS: Final = 4096


@dataclass(frozen=True)
class LiteServer:
    """TCP address and Ed25519 public key."""

    address: UdpAddress
    public_key: bytes


@dataclass(frozen=True)
class GlobalConfig:
    """`raw` is the whole JSON object as it was read, for libraries that want it."""

    dht_nodes: tuple[DhtNode, ...]
    k: int
    a: int
    lite_servers: tuple[LiteServer, ...]
    raw: Mapping[str, Any]

    @property
    def hosts(self) -> frozenset[str]:
        """IPv4 texts of all machines that it names."""
        nodes = {host for node in self.dht_nodes for host, _ in node.addresses.addresses}
        return frozenset(nodes | {server.address[0] for server in self.lite_servers})


def load_global_config(path: Path) -> GlobalConfig:
    """Read the file. Raises NotFound, BadData."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SIZE + 1)
    except OSError as exc:
        hint = "A devnet writes it when it starts; for another network download it from that network's site."
        raise NotFound(f"The global config {path} cannot be read: {exc.strerror}.", hint=hint) from exc
    try:
        return parse_global_config(data)
    except BadData as exc:
        raise BadData(f"{path}: {exc.message}") from exc


def parse_global_config(data: bytes | str) -> GlobalConfig:
    """Raises BadData for anything that is not a global config."""
    if len(data) > MAX_SIZE:
        raise BadData("the global config is too large")
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise BadData("the global config is not JSON") from exc
    root = _object(raw, "the global config")
    dht = _object(root.get("dht", {}), "dht")
    static = _object(dht.get("static_nodes", {}), "dht.static_nodes")
    nodes = _items(static.get("nodes", []), "dht.static_nodes.nodes")
    servers = _items(root.get("liteservers", []), "liteservers")
    return GlobalConfig(
        dht_nodes=tuple(node for node in map(_read_node, nodes) if node is not None),
        k=_number(dht.get("k", 10), "dht.k", 1, 1000),
        a=_number(dht.get("a", 3), "dht.a", 1, 1000),
        lite_servers=tuple(_read_server(server) for server in servers),
        raw=root,
    )


def emit_dht(nodes: Sequence[DhtNode], *, k: int = 6, a: int = 3) -> dict[str, Any]:
    """The `dht` section."""
    static = {"@type": "dht.nodes", "nodes": [_emit_node(node) for node in nodes]}
    return {"@type": "dht.config.global", "k": k, "a": a, "static_nodes": static}


def emit_lite_servers(servers: Sequence[LiteServer]) -> list[dict[str, Any]]:
    """The `liteservers` section."""
    return [
        {"ip": signed_ip(server.address[0]), "port": server.address[1], "id": _emit_key(server.public_key)}
        for server in servers
    ]


def signed_ip(host: str) -> int:
    """IPv4 text as the signed number of the config: 192.168.0.1 is negative."""
    number = pack_ip(host)
    return number - (1 << 32) if number >> 31 else number


# Reading.


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadData(f"{where} is not a JSON object")
    return value


def _items(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > MAX_ITEMS:
        raise BadData(f"{where} is not a list, or too long")
    return value


def _number(value: Any, where: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise BadData(f"{where} is not a number from {low} to {high}")
    return value


def _base64(value: Any, where: str, sizes: tuple[int, ...]) -> bytes:
    try:
        if not isinstance(value, str) or len(value) > 200:
            raise ValueError
        data = base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error) as exc:
        raise BadData(f"{where} is not base64") from exc
    if len(data) not in sizes:
        raise BadData(f"{where} has {len(data)} bytes")
    return data


def _public_key(value: Any, where: str) -> bytes:
    key = _object(value, where)
    if key.get("@type", "pub.ed25519") != "pub.ed25519":
        raise BadData(f"{where} is not an Ed25519 key")
    return _base64(key.get("key"), where, (32,))


def _read_address(value: Mapping[str, Any], where: str) -> UdpAddress:
    ip = _number(value.get("ip"), f"{where}.ip", -(1 << 31), (1 << 32) - 1)
    return unpack_ip(ip), _number(value.get("port"), f"{where}.port", -(1 << 31), (1 << 31) - 1)


def _read_node(value: Any) -> DhtNode | None:
    """None: a node without an address that we could use."""
    where = "a DHT node"
    node = _object(value, where)
    public_key = _public_key(node.get("id"), f"{where}.id")
    listed = _object(node.get("addr_list", {}), f"{where}.addr_list")
    addresses = []
    for item in _items(listed.get("addrs", []), f"{where}.addrs")[:16]:
        entry = _object(item, f"{where}.addrs")
        if entry.get("@type", "adnl.address.udp") == "adnl.address.udp":
            addresses.append(_read_address(entry, where))
    signature = node.get("signature", "")
    found = AddressList(
        addresses=tuple(address for address in addresses if usable(address)),
        version=_int32(listed, "version"),
        reinit_date=_int32(listed, "reinit_date"),
        priority=_int32(listed, "priority"),
        expire_at=_int32(listed, "expire_at"),
    )
    if not found.addresses:
        return None
    signed = _base64(signature, f"{where}.signature", (0, 64, 68))
    return DhtNode.unverified(public_key, found, _int32(node, "version"), signed)


def _int32(value: Mapping[str, Any], name: str) -> int:
    return _number(value.get(name, 0), name, -(1 << 31), (1 << 31) - 1)


def _read_server(value: Any) -> LiteServer:
    server = _object(value, "a lite server")
    return LiteServer(_read_address(server, "a lite server"), _public_key(server.get("id"), "a lite server's id"))


# Writing.


def _emit_key(public_key: bytes) -> dict[str, Any]:
    return {"@type": "pub.ed25519", "key": base64.b64encode(public_key).decode("ascii")}


def _emit_node(node: DhtNode) -> dict[str, Any]:
    listed = node.addresses
    return {
        "@type": "dht.node",
        "id": _emit_key(node.public_key),
        "addr_list": {
            "@type": "adnl.addressList",
            "addrs": [
                {"@type": "adnl.address.udp", "ip": signed_ip(host), "port": port} for host, port in listed.addresses
            ],
            "version": listed.version,
            "reinit_date": listed.reinit_date,
            "priority": listed.priority,
            "expire_at": listed.expire_at,
        },
        "version": node.version,
        "signature": base64.b64encode(node.signature).decode("ascii"),
    }
