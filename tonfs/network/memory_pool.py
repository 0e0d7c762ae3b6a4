"""The bytes that peers make us hold without our asking, all of them together.

Each peer has an account for what may be dropped at any time: halves of messages, transfers that have not arrived whole,
answers kept for repetitions, notes about finished transfers. When the pool is full, the strangers that hold most lose
what they hold, those that we chose to talk to last; whoever holds as much as they do gets nothing instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_CLASSES: Final = 48
"""Accounts are sorted by the number of bits of what they hold."""


class Pool:
    """`limit` bytes for all accounts. Every operation takes constant time: a flood of strangers costs no searching."""

    def __init__(self, limit: int) -> None:
        self.limit: Final = limit
        self.used = 0
        self.shed = 0
        """How often an account had to give up what it held."""
        self._strangers: list[dict[Account, None]] = [{} for _ in range(_CLASSES)]
        """By class, those that came into it first in front."""

    def make_room(self, size: int, account: Account, held: int) -> bool:
        """Let so many more bytes fit for this account, at the cost of strangers that hold more than `held`."""
        lowest = 0 if account.chosen else held.bit_length()
        rank = _CLASSES - 1
        while self.used + size > self.limit:
            while rank > lowest and not self._strangers[rank]:
                rank -= 1
            victim = next(iter(self._strangers[rank]), None)
            if rank <= lowest or victim is None:
                return False
            self.shed += 1
            victim.shed()
        return True

    def sort(self, account: Account, before: int) -> None:
        """An account that held `before` bytes holds another amount now."""
        rank = account.held.bit_length()
        if before.bit_length() != rank and not account.chosen:
            self.forget(account, before)
            if account.held:
                self._strangers[rank][account] = None

    def forget(self, account: Account, held: int) -> None:
        self._strangers[held.bit_length()].pop(account, None)


class Account:
    """What one peer makes us hold. `on_shed` drops as much of it as can be, and gives it back."""

    __slots__ = ("_chosen", "_on_shed", "_pool", "held")

    def __init__(self, pool: Pool, on_shed: Callable[[], None]) -> None:
        self._pool = pool
        self._on_shed = on_shed
        self._chosen = False
        self.held = 0

    @property
    def chosen(self) -> bool:
        """It is a peer that we chose to talk to."""
        return self._chosen

    def choose(self) -> None:
        if not self._chosen:
            self._pool.forget(self, self.held)
            self._chosen = True

    def take(self, size: int, *, stays: bool = False) -> bool:
        """Whether so many more bytes may be held; they are, then.

        `stays`: they will be held for long, so others lose theirs only if they hold more than we would now."""
        pool = self._pool
        if pool.used + size > pool.limit and not pool.make_room(size, self, self.held + size * stays):
            return False
        self._change(size)
        return True

    def give(self, size: int) -> None:
        self._change(-size)

    def _change(self, size: int) -> None:
        before = self.held
        self.held += size
        self._pool.used += size
        self._pool.sort(self, before)

    def shed(self) -> None:
        """Drop everything. The account is empty afterwards, whatever `on_shed` did."""
        self._on_shed()
        self._change(-self.held)
