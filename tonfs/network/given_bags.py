"""Which bags a daemon holds because we gave them to it: only those may be taken out of it again."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ..bagfiles.places import disk_error, write_atomically
from ..ids import BagId, bag_id


class GivenBags:
    """Kept in a file, one BagID a line (docs/bags.md), so that a restart knows them; in memory only without one.

    A line that is no BagID is skipped: a bag that is not known here stays in the daemon.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Raises TonfsError when the file cannot be read."""
        self._path: Final = path
        self._bags: set[BagId] = set()
        try:
            words = path.read_text(encoding="ascii", errors="replace").split() if path is not None else []
        except FileNotFoundError:
            words = []
        except OSError as exc:
            raise disk_error(exc, "reading which bags the daemon was given") from None
        for word in words:
            try:
                self._bags.add(bag_id(word))
            except ValueError:
                continue

    def __contains__(self, bag: BagId) -> bool:
        return bag in self._bags

    def add(self, bag: BagId) -> None:
        """Raises NoSpace, TonfsError."""
        self._bags.add(bag)
        self._save()

    def discard(self, bag: BagId) -> None:
        """Raises NoSpace, TonfsError."""
        self._bags.discard(bag)
        self._save()

    def _save(self) -> None:
        if self._path is not None:
            try:
                write_atomically(self._path, "".join(f"{bag.hex()}\n" for bag in sorted(self._bags)).encode("ascii"))
            except OSError as exc:
                raise disk_error(exc, "noting which bags the daemon was given") from None
