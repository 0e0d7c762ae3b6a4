"""Hashing a tree into a bag (reference protocol 1.3, 1.4, 1.7)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from ..bag import MAX_PIECE, MIN_PIECE, SAFE_DESCRIPTION, BagHeader, PieceTree, TorrentInfo, check_names
from ..errors import BadBag, Refused, UsageError
from .hashing import Notes, Progress, StreamHasher, fingerprint
from .scan import Order, ScannedTree, scan

WORTH_NOTING: Final = 64 << 20
"""Bags of fewer bytes are hashed again rather than gone on with."""


@dataclass(frozen=True)
class CreatedBag:
    """A bag whose data lies in `files` (name in the bag, path).

    `noted`: where the hashes stand on disk until the bag is kept, if they do.
    """

    info: TorrentInfo
    header: BagHeader
    tree: PieceTree
    files: list[tuple[bytes, bytes]]
    data_root: Path
    noted: Path | None = None

    @property
    def hashes(self) -> list[bytes]:
        """sha256 of every piece."""
        return self.tree.piece_hashes()


class HashWriter:
    """Cuts a stream into pieces and hashes them. The header's bytes may come last: `lead` bytes are left out in front.

    Feed everything behind the header with `write`, then call `finish(header)`. The header and what shares its last
    piece is kept in memory (at most a piece beyond the header).
    """

    def __init__(self, piece_size: int, lead: int) -> None:
        self._piece_size = piece_size
        self._lead = lead
        self._first = bytearray()
        self._first_left = -lead % piece_size
        self._hashes: list[bytes] = []
        self._open = sha256()
        self._open_left = piece_size
        self.written = 0

    def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        self.written += len(view)
        if self._first_left:
            self._first += view[: self._first_left]
            taken = min(len(view), self._first_left)
            self._first_left -= taken
            view = view[taken:]
        while view:
            part = view[: self._open_left]
            self._open.update(part)
            self._open_left -= len(part)
            view = view[len(part) :]
            if not self._open_left:
                self._hashes.append(self._open.digest())
                self._open, self._open_left = sha256(), self._piece_size

    def finish(self, header: bytes) -> list[bytes]:
        """All piece hashes. `header` must have `lead` bytes."""
        assert len(header) == self._lead
        if self._open_left != self._piece_size:
            self._hashes.append(self._open.digest())
        front = header + bytes(self._first)
        size = self._piece_size
        return [sha256(front[at : at + size]).digest() for at in range(0, len(front), size)] + self._hashes


def default_piece_size(data_size: int) -> int:
    """The choice of tonutils-storage, by bytes of file data (reference 1.3)."""
    if data_size > 10 << 30:
        return 1 << 20
    if data_size > 2 << 30:
        return 512 << 10
    return 256 << 10 if data_size > 512 << 20 else 128 << 10


def describe(
    header: BagHeader, tree: PieceTree, piece_size: int, description: bytes = b"", *, cpp: bool = False
) -> TorrentInfo:
    """The TorrentInfo of a hashed stream. Raises BadBag when the numbers are not acceptable."""
    info = TorrentInfo(
        piece_size=piece_size,
        file_size=header.size + header.data_size,
        root_hash=tree.root_hash,
        header_size=header.size,
        header_hash=sha256(header.to_bytes()).digest(),
        description=description,
        text_style="cpp" if cpp else "go",
    )
    info.check()
    return info


def create_bag(
    path: Path,
    *,
    description: bytes = b"",
    piece_size: int = 0,
    order: Order = "walk",
    progress: Progress | None = None,
    raw: bool = False,
    notes: Path | None = None,
) -> CreatedBag:
    """Hash a file or folder into a bag. `piece_size` 0 chooses by size. `notes`: a folder where hashes are noted until
    the bag is kept (`BagStore.keep`); when the work is interrupted, the next call with unchanged input goes on there.

    Refuses bags that some known daemon cannot serve or that crash it (exact multiples of the piece size, hidden
    folders, backslashes, `./` in names, descriptions over 166 bytes). `raw` makes them all the same, with the habits of
    the creator that has this order. Raises NotFound, Refused, UsageError, Stale when a file changes meanwhile.
    """
    if piece_size and not MIN_PIECE <= piece_size <= MAX_PIECE:
        raise UsageError(f"A piece size of {piece_size} is not allowed.", hint=f"Use {MIN_PIECE} to {MAX_PIECE} bytes.")
    tree = scan(path, order)
    header = _header(tree, raw=raw, order=order)
    size = piece_size or default_piece_size(tree.data_size)
    total = header.size + header.data_size
    if not raw:
        if len(description) > SAFE_DESCRIPTION:
            raise Refused(
                f"A description of {len(description)} bytes does not mean the same bag to every creator.",
                hint=f"Keep it within {SAFE_DESCRIPTION} bytes.",
            )
        if total % size == 0:
            raise Refused(
                f"This bag would fill its last piece exactly ({total} bytes, pieces of {size}); that crashes "
                "tonutils-storage daemons that touch it.",
                hint="Give another --piece-size, or change the data or a name by one byte.",
            )
    front = header.to_bytes()
    hasher = StreamHasher(front, tree.files, size, progress)
    kept = None
    if notes is not None and hasher.size >= WORTH_NOTING:
        kept = Notes(notes, fingerprint(tree.files, front, size), hasher.pieces)
    try:
        pieces = PieceTree(hasher.hashes(kept))
    finally:
        if kept is not None:
            kept.close()
    try:
        info = describe(header, pieces, size, description, cpp=order == "sorted")
    except BadBag as exc:
        if kept is not None:
            kept.path.unlink(missing_ok=True)
        raise Refused(f"No daemon would accept this bag: {exc.message}") from None
    places = list(zip(tree.files.names, tree.files.places, strict=True))
    return CreatedBag(info, header, pieces, places, tree.data_root, None if kept is None else kept.path)


def _header(tree: ScannedTree, *, raw: bool, order: Order) -> BagHeader:
    names = tuple(tree.files.names)
    header = BagHeader(tree.dir_name, names, tuple(tree.files.sizes))
    # What the creator of this order itself refuses, raw or not (reference 1.6).
    if order == "walk" or not raw:
        for name in (tree.dir_name, *names):
            if b"./" in name:
                raise Refused(f"The name {os.fsdecode(name)!r} holds './', which tonutils-storage refuses.")
    if raw:
        return header
    if tree.root.is_dir() and tree.root.name.startswith("."):
        raise Refused(
            f"The folder's own name {tree.root.name!r} begins with a dot; tonutils-storage cannot serve such a bag.",
            hint="Rename the folder, or make the bag of a folder that contains it.",
        )
    parent = len(os.fsencode(tree.root.parent))
    for place in tree.files.places:
        if b"\\" in place[parent:]:
            raise Refused(f"The name {os.fsdecode(place)!r} holds a backslash; not every daemon can serve such a bag.")
    try:
        check_names(names)
    except BadBag as exc:
        raise Refused(f"These names cannot be in one bag: {exc.message}") from None
    return header
