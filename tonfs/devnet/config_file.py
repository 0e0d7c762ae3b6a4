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
from ..network.global_config import LiteServer, emit_dht, emit_lite_servers
from .chain_api import BlockId


def _block(block: BlockId) -> dict[str, Any]:
    return {
        "workchain": block.workchain,
        "shard": block.shard,
        "seqno": block.seqno,
        "root_hash": base64.b64encode(block.root_hash).decode("ascii"),
        "file_hash": base64.b64encode(block.file_hash).decode("ascii"),
    }


def global_config(
    *, dht_nodes: Sequence[DhtNode], lite_server: UdpAddress, lite_key: bytes, zero_state: BlockId
) -> dict[str, Any]:
    """The whole config as a JSON object. `lite_server` is its TCP address, `lite_key` its Ed25519 public key.

    The trusted block of a new chain is its zero state.
    """
    return {
        "@type": "config.global",
        "dht": emit_dht(dht_nodes),
        "liteservers": emit_lite_servers([LiteServer(lite_server, lite_key)]),
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
