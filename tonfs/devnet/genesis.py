"""The network's config: just the parameters that transactions and clients need (reference contracts 9.3).

Prices are the basechain's and masterchain's since June 2024, so that fees equal the real network's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from .accounts_dict import dictionary
from .cells import Builder, Cell

GLOBAL_ID: Final = -239
"""What public wallets sign for; a devnet with another id would need other wallets."""
CONFIG_ADDRESS: Final = bytes.fromhex("55" * 32)
GLOBAL_VERSION: Final = 8
CAPABILITIES: Final = 0x1EE
SOFTWARE_VERSION: Final = 9


def _gas_prices(flat_price: int, price: int, limit: int, special: int, block: int) -> Cell:
    out = Builder().uint(0xD1, 8).uint(100, 64).uint(flat_price, 64).uint(0xDE, 8).uint(price << 16, 64)
    out.uint(limit, 64).uint(special, 64).uint(10_000, 64).uint(block, 64)
    return out.uint(100_000_000, 64).uint(1_000_000_000, 64).end()


def _forward_prices(lump: int, bit: int, cell: int) -> Cell:
    out = Builder().uint(0xEA, 8).uint(lump, 64).uint(bit, 64).uint(cell, 64)
    return out.uint(98304, 32).uint(21845, 16).uint(21845, 16).end()


def _workchains() -> Cell:
    basechain = Builder().uint(0xA6, 8).uint(0, 32).uint(0, 8).uint(0, 8).uint(0, 8)
    basechain.uint(0b111, 3).zeros(13).zeros(512).uint(0, 32)  # basic, active, accepts messages; zero state unsaid
    basechain.uint(1, 4).sint(-1, 32).uint(0, 64)  # wfmt_basic: vm version and mode
    return Builder().maybe_ref(dictionary({0: basechain}, 32)).end()


def _storage_prices() -> Cell:
    prices = Builder().uint(0xCC, 8).uint(0, 32).uint(1, 64).uint(500, 64).uint(1000, 64).uint(500_000, 64)
    return dictionary({0: prices}, 32)


def config_parameters() -> Mapping[int, Cell]:
    """Parameter number -> cell."""
    return {
        0: Builder().raw(CONFIG_ADDRESS).end(),
        8: Builder().uint(0xC4, 8).uint(GLOBAL_VERSION, 32).uint(CAPABILITIES, 64).end(),
        12: _workchains(),
        18: _storage_prices(),
        20: _gas_prices(1_000_000, 10_000, 1_000_000, 70_000_000, 2_500_000),
        21: _gas_prices(40_000, 400, 1_000_000, 1_000_000, 10_000_000),
        24: _forward_prices(10_000_000, 655_360_000, 65_536_000_000),
        25: _forward_prices(400_000, 26_214_400, 2_621_440_000),
    }


def config_dictionary(only: Sequence[int] | None = None) -> Cell:
    """Root of the config dictionary (Hashmap 32 ^Cell)."""
    items = {n: Builder().ref(cell) for n, cell in config_parameters().items() if only is None or n in only}
    return dictionary(items, 32)
