"""Showing up on the public list: one transfer with a comment to a well-known address, once (reference contracts 7)."""

from __future__ import annotations

from typing import Final

import trio

from ..chain import Chain, Message, comment
from ..errors import TonfsError
from ..ids import Address, NanoTon, ProviderKey
from ..log import get_logger
from .sender import Sender
from .store import ProviderStore

log = get_logger(__name__)

REGISTRY: Final = Address("0:" + "7" * 64)
FEE: Final = NanoTon(10_000_000)
NEEDS: Final = NanoTon(30_000_000)
"""Least balance of the wallet before it registers."""
NOTE: Final = "registered"
RETRY_EVERY: Final = 5.0
_PAGE: Final = 16
_MAX_PAGES: Final = 256


def announcement(key: ProviderKey) -> str:
    return f"tsp-{key.hex()}"


async def is_registered(chain: Chain, wallet: Address, key: ProviderKey) -> bool:
    """Does the wallet's history show the transfer? Reads it from the newest transaction back."""
    text = announcement(key)
    before: tuple[int, bytes] | None = None
    for _ in range(_MAX_PAGES):
        page = await chain.transactions(wallet, limit=_PAGE, before=before)
        for transaction in page:
            if any(m.destination == REGISTRY and m.comment == text for m in transaction.out_messages):
                return True
        if not page or not page[-1].prev_lt:
            return False
        before = (page[-1].prev_lt, page[-1].prev_hash)
    return False


async def register(chain: Chain, sender: Sender, store: ProviderStore, key: ProviderKey) -> None:
    """Return once the announcement is on chain. Waits for coins; failures of the network are retried for ever."""
    while store.note(NOTE) != "yes":
        try:
            state = await sender.state()
            if state.last_lt and await is_registered(chain, sender.wallet.address, key):
                store.set_note(NOTE, "yes")
                log.info("registered", key=key)
                return
            if state.balance >= NEEDS:
                body = comment(announcement(key))
                await sender.deliver([Message(REGISTRY, FEE, body, bounce=False)])
                continue  # look for it on chain
        except TonfsError as exc:
            log.info("not registered yet", reason=exc.message)
        await trio.sleep(RETRY_EVERY)
