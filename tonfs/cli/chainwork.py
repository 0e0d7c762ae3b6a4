"""For verbs that read the chain themselves: the lite servers of the volume's network, one call, and done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import trio

from ..chain.lite import LiteChain, open_chain
from ..chain.wallet import Wallet
from ..config import Settings
from ..errors import NotFound, NotRunning, denied

T = TypeVar("T")


def global_config(volume: Path, settings: Settings) -> Path:
    """The TON global config in force of a volume with a network. Raises UsageError or NotRunning when there is none."""
    from ..agent.main import global_config_path

    path = global_config_path(volume, settings)
    if not path.exists():
        raise NotRunning(f"There is no global config at {path}.", hint="Start the network: 'tonfs up'.")
    return path


def with_chain(volume: Path, settings: Settings, work: Callable[[LiteChain], Awaitable[T]]) -> T:
    """Run `work` with a proving lite client. Raises ChainUnavailable, BadProof, and what `work` raises."""
    path = global_config(volume, settings)

    async def main() -> T:
        async with open_chain(path) as chain:
            return await work(chain)

    return trio.run(main)


def volume_wallet(volume: Path) -> Wallet:
    """The wallet of the volume's 24 words. Raises NotFound."""
    try:
        words = (volume / "keys" / "words").read_text(encoding="utf-8").split()
    except PermissionError as exc:
        raise denied(exc) from None
    except OSError as exc:
        raise NotFound(f"The wallet's words cannot be read ({exc.strerror}).") from None
    return Wallet.from_words(words)
