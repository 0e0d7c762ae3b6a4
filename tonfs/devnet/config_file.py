"""`global.config.json` of a devnet: what stock TON software loads to find the chain and the DHT (reference devnet 4).

`ip` is a signed 32-bit number (pytoniq fails on the unsigned form), keys and hashes are base64. The file is made anew
at every start; keys and ports are kept, so an old copy stays good as long as the chain's state directory lives.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..network.api import UdpAddress
from ..network.dht_types import DhtNode
from .chain_api import BlockId


def signed_ip(host: str) -> int:
    """IPv4 text as the signed number of the config: 127.0.0.1 is 2130706433, 192.168.0.1 is negative."""
    return int.from_bytes(bytes(int(part) for part in host.split(".")), "big", signed=True)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _key(public_key: bytes) -> dict[str, Any]:
    return {"@type": "pub.ed25519", "key": _b64(public_key)}


def _dht_node(node: DhtNode) -> dict[str, Any]:
    addresses = node.addresses
    return {
        "@type": "dht.node",
        "id": _key(node.public_key),
        "addr_list": {
            "@type": "adnl.addressList",
            "addrs": [
                {"@type": "adnl.address.udp", "ip": signed_ip(host), "port": port} for host, port in addresses.addresses
            ],
            "version": addresses.version,
            "reinit_date": addresses.reinit_date,
            "priority": addresses.priority,
            "expire_at": addresses.expire_at,
        },
        "version": node.version,
        "signature": _b64(node.signature),
    }


def _block(block: BlockId) -> dict[str, Any]:
    return {
        "workchain": block.workchain,
        "shard": block.shard,
        "seqno": block.seqno,
        "root_hash": _b64(block.root_hash),
        "file_hash": _b64(block.file_hash),
    }


def global_config(
    *, dht_nodes: Sequence[DhtNode], lite_server: UdpAddress, lite_key: bytes, zero_state: BlockId
) -> dict[str, Any]:
    """The whole config as a JSON object. `lite_server` is its TCP address, `lite_key` its Ed25519 public key.

    The trusted block of a new chain is its zero state.
    """
    host, port = lite_server
    return {
        "@type": "config.global",
        "dht": {
            "@type": "dht.config.global",
            "k": 6,
            "a": 3,
            "static_nodes": {"@type": "dht.nodes", "nodes": [_dht_node(node) for node in dht_nodes]},
        },
        "liteservers": [{"ip": signed_ip(host), "port": port, "id": _key(lite_key)}],
        "validator": {
            "@type": "validator.config.global",
            "zero_state": _block(zero_state),
            "init_block": _block(zero_state),
            "hardforks": [],
        },
    }


def write_atomically(path: Path, text: str) -> None:
    """Readers see the old file or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_config(path: Path, config: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(config, indent=1) + "\n")
