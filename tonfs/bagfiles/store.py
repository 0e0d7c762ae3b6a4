"""Bags kept by themselves, without a volume: one bag directory each, found by BagID.

Directory of a store (docs/formats.md, "Bag store"):

    bags/<bag id>/   a bag directory
    making/          piece hashes of bags that are being made, for those who go on after an interruption
    keys/peer.key    the ADNL key of the peer process
    run/, log/       its control socket and its log
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from ..errors import NotFound, Refused, TonfsError, UsageError
from ..ids import BagId, bag_id
from .create import CreatedBag
from .places import disk_error
from .stored import StoredBag


class BagStore:
    """Blocking calls. Nothing is made on disk before the first bag is kept."""

    def __init__(self, root: Path) -> None:
        self.root: Final = root.absolute()

    @property
    def socket(self) -> Path:
        return self.root / "run" / "peer.sock"

    @property
    def making(self) -> Path:
        return self.root / "making"

    def directory(self, bag: BagId) -> Path:
        return self.root / "bags" / bag.hex()

    def ids(self) -> list[BagId]:
        """The bags in here, in the order of their ids."""
        try:
            names = sorted(os.listdir(self.root / "bags"))
        except FileNotFoundError:
            return []
        return [bag_id(name) for name in names if len(name) == 64 and (self.root / "bags" / name / "bag.json").exists()]

    def locate(self, word: str) -> Path:
        """The directory of a bag named by its id, or by the path of a bag directory.

        Raises NotFound, UsageError for what is neither.
        """
        path = Path(word)
        return path.absolute() if (path / "bag.json").exists() else self.find(word)

    def find(self, word: str) -> Path:
        """The directory in here of the bag with this id. Raises NotFound, UsageError."""
        try:
            wanted = bag_id(word)
        except ValueError:
            raise UsageError(
                f"{word!r} is no BagID.",
                hint="A BagID has 64 hex digits; 'tonfs bag create' makes one of a file or folder.",
            ) from None
        directory = self.directory(wanted)
        if not (directory / "bag.json").exists():
            raise NotFound(f"Bag {wanted.hex()} is not in {self.root}.", hint="'tonfs bag list' shows what is.")
        return directory

    def keep(self, created: CreatedBag) -> Path:
        """Remember a bag that was just made: info, header and tree; the data stays where it lies.

        Notes of its hashes go then. Making it again renews what is known. A bag that is complete from elsewhere
        is left alone. Raises Refused while it is being downloaded, UsageError when a file cannot be found again by its
        name in the bag, NoSpace.
        """
        directory = self.directory(created.info.bag_id)
        if (directory / "bag.json").exists():
            known = StoredBag.open(directory)
            try:
                if known.data_root != created.data_root:
                    if known.complete:
                        self._drop_notes(created)
                        return directory
                    raise Refused(
                        f"Bag {known.bag_id.hex()} is being downloaded into {known.data_root}.",
                        hint=f"Finish that, or 'tonfs bag remove {known.bag_id.hex()}' first.",
                    )
            finally:
                known.close()
        StoredBag.keep(directory, created)
        self._drop_notes(created)
        return directory

    @staticmethod
    def _drop_notes(created: CreatedBag) -> None:
        if created.noted is not None:
            created.noted.unlink(missing_ok=True)

    def prepare(self, wanted: BagId, into: Path | None) -> StoredBag:
        """A bag to be downloaded below `into` (None: where it was begun, or inside the store).

        Raises Refused when it was begun elsewhere, NoSpace.
        """
        stored = StoredBag.prepare(self.directory(wanted), wanted, into)
        if into is not None and stored.data_root.resolve() != into.resolve():
            where = stored.data_root
            stored.close()
            raise Refused(
                f"Bag {wanted.hex()} lies below {where}.",
                hint="Leave the folder out to go on there, or 'tonfs bag remove' the bag first.",
            )
        return stored

    def remove(self, directory: Path, *, files: bool) -> int:
        """Forget a bag; with `files` delete what was downloaded of it, too. Returns bytes of data deleted.

        Files that a bag was made of belong to the user and are never deleted. Raises TonfsError when deleting fails.
        """
        stored = StoredBag.open(directory)
        inside = stored.data_root.is_relative_to(directory)
        deleted = 0
        if not stored.foreign and (files or inside) and stored.info is not None and stored.header is not None:
            deleted = min(stored.header.data_size, stored.have_count * stored.info.piece_size)
            if not inside:
                stored.drop_data()
        stored.close()
        try:
            shutil.rmtree(directory)
        except OSError as exc:
            raise disk_error(exc, f"removing {directory}") from None
        return deleted


def summary(directory: Path) -> dict[str, object]:
    """A bag of a store in plain values; a damaged one is listed with its problem."""
    name = directory.name
    try:
        stored = StoredBag.open(directory)
    except TonfsError as exc:
        return {"bag_id": name, "complete": False, "problem": exc.message}
    info, header = stored.info, stored.header
    value: dict[str, object] = {
        "bag_id": stored.bag_id.hex(),
        "description": "" if info is None else os.fsdecode(info.description),
        "size": 0 if info is None else info.file_size,
        "piece_size": 0 if info is None else info.piece_size,
        "pieces": 0 if info is None else info.pieces,
        "have": stored.have_count,
        "complete": stored.complete,
        "own_files": stored.foreign,
        "path": str(stored.data_root / os.fsdecode(header.top)) if header else "",
        "files_count": 0 if header is None else len(header.names),
        "problem": stored.broken,
    }
    stored.close()
    return value
