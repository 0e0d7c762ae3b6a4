"""The provider role (generation 2): accepts contracts, fetches and serves bags, proves on chain, earns."""

from __future__ import annotations

from .config import ProviderConfig
from .rules import Event, Record, State, advance

__all__ = ["Event", "ProviderConfig", "Record", "State", "advance"]
