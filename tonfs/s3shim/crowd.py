"""How many bodies are on the move at once, and therefore how large a block of one of them may be in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

MEMORY: Final = 16 << 20
"""Bytes that the blocks of all bodies together may take, roughly."""
LEAST: Final = 64 << 10
COPIES: Final = 3
"""Blocks of one body that are there at the same time: one being filled, one being worked on, one ready for it."""


class Crowd:
    """For one thread."""

    def __init__(self, pause: Callable[[], None] = lambda: None) -> None:
        """`pause` is called at each block: bodies make room for others there (`turns.py`)."""
        self._pause = pause
        self._count = 0

    def enter(self) -> None:
        self._count += 1

    def leave(self) -> None:
        self._count -= 1

    def block(self, most: int) -> int:
        """Bytes for the next block of one of them: a power of two, or `most` when there are few."""
        self._pause()
        share = MEMORY // (COPIES * max(1, self._count))
        return max(LEAST, min(most, 1 << share.bit_length() - 1))
