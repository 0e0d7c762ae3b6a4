"""Discovers, quotes, scores and selects storage providers."""

from __future__ import annotations

from .discover import REGISTRY, discover, registered
from .quote import Quote, quote, terms
from .select import effective_price, select

__all__ = ["REGISTRY", "Quote", "discover", "effective_price", "quote", "registered", "select", "terms"]
