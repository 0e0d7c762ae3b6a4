"""Who offers storage: providers announce themselves on chain (reference contracts section 7).

A provider sends a small amount from its own wallet to `0:7777...77` with the comment `tsp-` and its public key in
lower-case hex. Anyone can read that account's transactions; nobody can be listed by somebody else, because the sender
must be the v3r2 wallet of that very key.
"""

from __future__ import annotations

import re
from typing import Final

from ..chain.api import Chain, Transaction
from ..chain.wallet import Version, key_address
from ..ids import Address, ProviderKey

REGISTRY: Final = Address("0:" + "77" * 32)
PREFIX: Final = "tsp-"
MOST_PAGES: Final = 200
PAGE: Final = 16

_COMMENT: Final = re.compile(r"tsp-([0-9a-f]{64})")


def registered(transaction: Transaction) -> ProviderKey | None:
    """The provider that registers itself with this transaction, else None."""
    message = transaction.in_message
    if message is None or message.bounced or message.comment is None:
        return None
    match = _COMMENT.fullmatch(message.comment)
    if match is None:
        return None
    key = ProviderKey(bytes.fromhex(match[1]))
    return key if message.source == key_address(key, Version.V3R2) else None


async def discover(chain: Chain, *, most_pages: int = MOST_PAGES) -> list[ProviderKey]:
    """Registered providers, newest registration first, each once. Raises ChainUnavailable, BadProof."""
    found: dict[ProviderKey, None] = {}
    before: tuple[int, bytes] | None = None
    for _ in range(most_pages):
        page = await chain.transactions(REGISTRY, PAGE, before)
        for transaction in page:
            key = registered(transaction)
            if key is not None:
                found.setdefault(key)
        if not page or page[-1].prev_lt == 0:
            break
        before = (page[-1].prev_lt, page[-1].prev_hash)
    return list(found)
