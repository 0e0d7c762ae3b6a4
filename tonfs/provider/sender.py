"""Externals of the provider's wallet: one in flight at a time, its fate read from the chain.

Nothing is kept on disk: two externals with the same seqno exclude each other, so after a crash the next one simply
takes the seqno that the chain shows, whether or not an earlier one is still on its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio

from ..chain import AccountState, Chain, Message, Wallet
from ..errors import ExternalRefused
from ..log import get_logger

log = get_logger(__name__)

LIFE: Final = 60
"""Chain seconds for which an external is valid."""
RESEND_BLOCKS: Final = 5


class Sender:
    def __init__(self, chain: Chain, wallet: Wallet) -> None:
        self._chain = chain
        self.wallet: Final = wallet
        self._lock = trio.Lock()

    @property
    def busy(self) -> bool:
        return self._lock.locked()

    async def state(self) -> AccountState:
        """The wallet's account."""
        return await self._chain.account(self.wallet.address)

    async def deliver(self, messages: Sequence[Message]) -> bool:
        """Send up to four messages in one external; wait until the wallet carried it out (True) or it expired (False).

        What the receivers made of them is not known. Raises ExternalRefused, ChainUnavailable, BadProof.
        """
        async with self._lock:
            seqno = self.wallet.seqno(await self.state())
            external = self.wallet.sign(seqno, await self._chain.now() + LIFE, messages)
            refusal: ExternalRefused | None = None
            round_ = 0
            while True:
                if round_ % RESEND_BLOCKS == 0 and refusal is None:
                    try:
                        await self._chain.send_boc(external.boc)
                    except ExternalRefused as exc:
                        refusal = exc  # perhaps because it was carried out a moment ago: the next block tells
                await self._chain.wait_block()
                state = await self.state()
                if self.wallet.seqno(state) > seqno:
                    return True
                if refusal is not None:
                    raise refusal
                if state.now > external.valid_until:
                    log.info("an external expired", seqno=seqno)
                    return False
                round_ += 1
