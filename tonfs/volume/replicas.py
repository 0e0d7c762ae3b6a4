"""How many replicas the files of a pack ask for: `user.tonfs.policy.replicas` of the nearest directory counts."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ..policy import PATH_POLICY_PREFIX
from .api import ROOT

REPLICAS: Final = f"{PATH_POLICY_PREFIX}replicas".encode()
PAUSE: Final = 20.0
"""What packs are asked for is found out anew after this many times as long as it took the last time."""
_BELOW: Final = (
    "WITH RECURSIVE said(inode) AS (SELECT inode FROM xattr WHERE name = ?1), "
    "tree(inode) AS (SELECT ?2 UNION SELECT n.inode FROM tree t JOIN name n ON n.parent = t.inode "
    "WHERE n.inode NOT IN (SELECT inode FROM said) "
    "UNION SELECT a.inode FROM tree t JOIN attached a ON a.dir = t.inode) "
    "SELECT DISTINCT e.pack FROM tree t JOIN extent e ON e.inode = t.inode WHERE e.pack IS NOT NULL"
)
"""Packs of the files below an inode (and of itself), without those for which something nearer is said."""


@dataclass(frozen=True, slots=True)
class Asked:
    """`most`: the largest number that is said for one of a pack's files, 0 for none. `unsaid`: for one of them nothing
    is said, so that the volume's number counts, too."""

    most: int = 0
    unsaid: bool = True


def most(words: Iterable[bytes | None]) -> int | None:
    """Of a file with several names. None: the volume's number."""
    return max((int(word) for word in words if word is not None), default=None)


class AskedOfPacks:
    """Remembers the answer for a while, since the whole tree has to be walked for it. For one thread at a time."""

    def __init__(self) -> None:
        self._found: dict[int, Asked] = {}
        self._good_until = 0.0

    def of(self, db: sqlite3.Connection, packs: Iterable[int]) -> dict[int, Asked]:
        wanted = list(packs)
        said = dict(db.execute("SELECT inode, value FROM xattr WHERE name = ?", (REPLICAS,)).fetchall())
        if not said:
            self._found = {}
            return dict.fromkeys(wanted, Asked())
        if time.monotonic() > self._good_until or not self._found.keys() >= set(wanted):
            started = time.monotonic()
            self._found = dict.fromkeys(wanted, Asked()) | _find(db, {int(i): int(value) for i, value in said.items()})
            self._good_until = time.monotonic() + PAUSE * (time.monotonic() - started)
        return {pack: self._found[pack] for pack in wanted}


def _find(db: sqlite3.Connection, said: dict[int, int]) -> dict[int, Asked]:
    numbers: dict[int, int] = {}
    for inode, number in said.items():
        for (pack,) in db.execute(_BELOW, (REPLICAS, inode)):
            numbers[pack] = max(number, numbers.get(pack, 0))
    unsaid = set() if ROOT in said else {pack for (pack,) in db.execute(_BELOW, (REPLICAS, ROOT))}
    return {pack: Asked(numbers.get(pack, 0), pack in unsaid) for pack in numbers.keys() | unsaid}
