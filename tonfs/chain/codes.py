"""Code cells of the contracts that tonfs speaks to, from the `ton-core` package, each with its hash checked."""

from __future__ import annotations

from functools import cache
from typing import Final

from ..errors import Damaged
from .cells import Cell, one_cell

WALLET_V3R2: Final = bytes.fromhex("84dafa449f98a6987789ba232358072bc0f76dc4524002a5d0918b9a75d2d599")
WALLET_V4R2: Final = bytes.fromhex("feb5ff6820e2ff0d9483e7e0d62c817d846789fb4ae580c878866d959dabd5c0")
STORAGE2: Final = bytes.fromhex("385a5f0ddb841c17dd518a327c322d7d098e91c795eb9a152fe9be5cd20e40c9")

_NAMES: Final = {WALLET_V3R2: "wallet_v3r2", WALLET_V4R2: "wallet_v4r2", STORAGE2: "storage_contract"}


@cache
def code(code_hash: bytes) -> Cell:
    """The code cell with this hash (one of the constants above). Raises Damaged when the package holds another."""
    # Imported here because it takes a fifth of a second, which most commands need not spend.
    from ton_core.contrib.contracts.codes import CONTRACT_CODES

    name = _NAMES[code_hash]
    cell = one_cell(bytes.fromhex(CONTRACT_CODES[name]))
    if cell.hash != code_hash:
        raise Damaged(
            f"The package ton-core holds another code for {name} than tonfs knows.",
            hint="Install the locked version of ton-core.",
        )
    return cell
