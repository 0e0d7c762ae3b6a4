"""One bag on disk: what is known of it, which pieces are here, and their bytes at their place in the files.

Directory of a bag (docs/formats.md, "Bag directory"):

    bag.json    which bag, where its data lies, how far its files were laid out
    info.boc    the TorrentInfo as it was received
    tree.bin    the piece tree, 64 bytes for each leaf, zeros where unknown
    have.bin    one bit a piece, least significant first
    header.bin  the header; header.part while its pieces are still coming
    files/      the data, unless it lies elsewhere

A piece's bit is set after its bytes were handed to the kernel, so it holds after a process died at any point. After
power loss a bit may be ahead of its bytes; every read checks the hash, so that shows as `Damaged`, never as bad bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from ..bag import BagHeader, TorrentInfo, check_piece, proof_path
from ..errors import BadBag, BadPiece, Damaged, NotFound, Refused, TonfsError, UsageError
from ..ids import BagId, bag_id
from .create import CreatedBag
from .data_files import DataFiles
from .hashing import Progress
from .known_pieces import KnownPieces, ones
from .places import disk_error, read_all, sync_folder, write_all, write_atomically

_VERSION: Final = 1
_LAYOUTS: Final = ("none", "started", "done")


class StoredBag:
    """A bag in a directory. Blocking calls; reads may run in many threads, changes take turns by themselves."""

    def __init__(self, directory: Path, state: dict[str, Any]) -> None:
        """Not for callers: use `create`, `prepare` or `open`."""
        self.directory: Final = directory
        self.bag_id: Final[BagId] = bag_id(state["bag_id"])
        self.foreign: Final[bool] = state["foreign"]
        """The data belongs to the user: it is read where it lies, never written and never deleted."""
        self.data_root: Final = directory / state["data_root"]
        self.broken = ""
        """Why this bag can never be unpacked (its header breaks the rules); empty when nothing is wrong."""
        self._state = state
        self._lock = threading.RLock()
        self._info: TorrentInfo | None = None
        self._header: BagHeader | None = None
        self._known: KnownPieces | None = None
        self._files = DataFiles(self.data_root, directory / "header.bin", follow_links=self.foreign)

    # Making and opening.

    @classmethod
    def create(cls, directory: Path, created: CreatedBag) -> StoredBag:
        """`keep`, and open what was kept."""
        cls.keep(directory, created)
        return cls.open(directory)

    @staticmethod
    def keep(directory: Path, created: CreatedBag) -> None:
        """Remember a bag that was just made of files here; they stay where they are.

        Files outside `directory` are foreign: read only. Raises UsageError when a file cannot be found again by its
        name in the bag, NoSpace.
        """
        header, info = created.header, created.info
        folder = os.path.join(os.fsencode(created.data_root), header.folder)
        for name, path in created.files:
            if folder + name != path:
                raise UsageError(
                    f"{os.fsdecode(path)} is called {os.fsdecode(name)!r} in the bag: it could not be found again.",
                    hint="Rename the file, or leave the bag out of the store with --no-keep.",
                )
        foreign = not created.data_root.is_relative_to(directory)
        where = str(created.data_root.absolute()) if foreign else str(created.data_root.relative_to(directory))
        state = _new_state(info.bag_id, where, foreign=foreign, layout="done")
        try:
            directory.mkdir(parents=True, exist_ok=True)
            write_atomically(directory / "tree.bin", bytes(created.tree.heap))
            write_atomically(directory / "have.bin", ones(info.pieces))
            write_atomically(directory / "header.bin", header.to_bytes())
            write_atomically(directory / "info.boc", info.to_boc())
            write_atomically(directory / "bag.json", _encode(state))
        except OSError as exc:
            raise disk_error(exc, f"keeping bag {info.bag_id.hex()}") from None

    @classmethod
    def prepare(cls, directory: Path, bag_id: BagId, data_root: Path | None = None) -> StoredBag:
        """Make or reopen a bag that will be downloaded into `data_root` (default: `directory/files`).

        Raises Refused when the directory holds another bag, NoSpace.
        """
        if (directory / "bag.json").exists():
            stored = cls.open(directory)
            if stored.bag_id != bag_id:
                raise Refused(f"{directory} holds bag {stored.bag_id.hex()}, not {bag_id.hex()}.")
            return stored
        where = "files" if data_root is None else str(data_root.absolute())
        try:
            directory.mkdir(parents=True, exist_ok=True)
            state = _new_state(bag_id, where, foreign=False, layout="none")
            write_atomically(directory / "bag.json", _encode(state))
        except OSError as exc:
            raise disk_error(exc, f"preparing bag {bag_id.hex()}") from None
        return cls.open(directory)

    @classmethod
    def open(cls, directory: Path) -> StoredBag:
        """Raises NotFound when there is no bag, Damaged when its files contradict each other."""
        try:
            state = json.loads((directory / "bag.json").read_bytes())
            _check_state(state)
        except FileNotFoundError:
            raise NotFound(f"There is no bag in {directory}.") from None
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            raise Damaged(f"{directory / 'bag.json'} cannot be read: {exc}") from None
        stored = cls(directory, state)
        with contextlib.suppress(FileNotFoundError):
            stored._load((directory / "info.boc").read_bytes())
        return stored

    def _load(self, boc: bytes) -> None:
        try:
            info = TorrentInfo.parse(boc, self.bag_id)
        except BadBag as exc:
            raise Damaged(f"{self.directory / 'info.boc'} is damaged: {exc.message}") from None
        try:
            self._known = KnownPieces(self.directory, info, make=False)
        except FileNotFoundError as exc:
            raise Damaged(f"{exc.filename} is missing.") from None
        self._info = info
        try:
            self._header = BagHeader.parse((self.directory / "header.bin").read_bytes(), info)
        except FileNotFoundError:
            # A crash may have come between the last header piece and header.bin. What fails here fails again, and
            # is told, at the next write.
            with contextlib.suppress(TonfsError):
                self._try_header()
        except BadBag as exc:
            raise Damaged(f"{self.directory / 'header.bin'} is damaged: {exc.message}") from None

    def _save_state(self, layout: str) -> None:
        self._state = {**self._state, "layout": layout}
        write_atomically(self.directory / "bag.json", _encode(self._state))

    # What is known.

    @property
    def info(self) -> TorrentInfo | None:
        return self._info

    @property
    def header(self) -> BagHeader | None:
        return self._header

    @property
    def have_count(self) -> int:
        return 0 if self._known is None else self._known.count

    @property
    def complete(self) -> bool:
        return self._info is not None and self._header is not None and self.have_count == self._info.pieces

    def have(self, index: int) -> bool:
        """Whether piece `index` is here; False for numbers outside the bag."""
        return self._known is not None and self._known.have(index)

    def have_bitmap(self) -> bytes:
        """One bit a piece, least significant first, as `storage.updateInit` wants it. Empty without info."""
        return b"" if self._known is None else self._known.bitmap()

    def here(self) -> Iterator[int]:
        """Numbers of the pieces that are here; cheap also when millions are claimed and few came."""
        return iter(()) if self._known is None else self._known.here()

    def pieces_for(self, name: bytes, offset: int, length: int) -> range:
        """Numbers of the pieces that hold these bytes of a file (clipped to it).

        Raises NotFound for a name that is not in the bag, UsageError before the header is known.
        """
        (info, _), header = self._need(), self._header
        if header is None:
            raise UsageError(f"The header of bag {self.bag_id.hex()} is not here yet.")
        entry = header.file(name)
        if entry is None:
            raise NotFound(f"Bag {self.bag_id.hex()} has no file {os.fsdecode(name)!r}.")
        start = entry.start + max(0, offset)
        end = min(entry.start + max(0, offset + length), entry.start + entry.size)
        return range(start // info.piece_size, -(-end // info.piece_size)) if end > start else range(0)

    def set_info(self, boc: bytes) -> TorrentInfo:
        """Keep the TorrentInfo (any encoding of the right cells). Idempotent. Raises BadBag, NoSpace."""
        info = TorrentInfo.parse(boc, self.bag_id)
        with self._lock:
            if self._info is None and (self.directory / "info.boc").exists():
                self._load((self.directory / "info.boc").read_bytes())  # another object was faster
            elif self._info is None:
                try:
                    self._known = KnownPieces(self.directory, info, make=True)
                    write_atomically(self.directory / "info.boc", boc)
                except OSError as exc:
                    self._known = None
                    raise disk_error(exc, f"keeping bag {self.bag_id.hex()}") from None
                self._info = info
            return info

    def _need(self) -> tuple[TorrentInfo, KnownPieces]:
        if self._info is None or self._known is None:
            raise UsageError(f"The TorrentInfo of bag {self.bag_id.hex()} is not here yet.")
        return self._info, self._known

    # Pieces.

    def proof(self, index: int) -> bytes:
        """The `proof` field of storage.piece. Raises BadPiece when it is not known."""
        return self._need()[1].tree.proof(index)

    def read_piece(self, index: int) -> bytes:
        """The bytes of a piece, checked against its hash.

        Raises NotFound when the piece is not here; Damaged when the disk holds other bytes or none (the piece then
        counts as missing).
        """
        info, known = self._need()
        if not known.have(index):
            raise NotFound(f"Piece {index} of bag {self.bag_id.hex()} is not here.")
        try:
            return self._read_checked(info, known, index)
        except (OSError, BadPiece, BadBag):
            pass  # perhaps the files were being moved just now
        with self._lock:
            if not known.have(index):
                raise NotFound(f"Piece {index} of bag {self.bag_id.hex()} is not here any more.")
            try:
                return self._read_checked(info, known, index)
            except (OSError, BadPiece, BadBag) as exc:
                known.mark(index, here=False)
                raise Damaged(f"Piece {index} of bag {self.bag_id.hex()} is damaged on disk: {exc}") from None

    def _read_checked(self, info: TorrentInfo, known: KnownPieces, index: int) -> bytes:
        start, length = index * info.piece_size, info.piece_length(index)
        if self._header is not None:
            data = self._files.read(self._header, start, length)
        else:
            with open(self.directory / "header.part", "rb") as part:
                data = read_all(part.fileno(), length, start)
        check_piece(info, index, known.tree.piece_hash(index), data)
        return data

    def write_piece(self, index: int, data: bytes, proof: bytes) -> None:
        """Verify a piece and put its bytes in place. A piece that is here already is left alone.

        Until the header is known only pieces `0 .. info.header_pieces - 1` can be taken (UsageError otherwise).
        Raises BadPiece, BadBag when the header breaks the rules or a link is in the way, Refused for foreign data or
        files that are not ours, NoSpace.
        """
        info, known = self._need()
        path = proof_path(info, index, proof)
        check_piece(info, index, path[0], data)
        if self.foreign:
            raise Refused(f"The data of bag {self.bag_id.hex()} is read only.")
        with self._lock:
            if known.have(index):
                return
            if self.broken:
                raise BadBag(self.broken)
            if self._header is None:
                self._try_header()
            try:
                self._place(info, index, data)
                known.learn(index, path)
            except OSError as exc:
                raise disk_error(exc, f"writing piece {index} of bag {self.bag_id.hex()}") from None
            known.mark(index, here=True)
            if self._header is None:
                self._try_header()

    def _place(self, info: TorrentInfo, index: int, data: bytes) -> None:
        start = index * info.piece_size
        if self._header is not None:
            self._lay_out(self._header)
            self._files.write(self._header, start, data)
            return
        if index >= info.header_pieces:
            raise UsageError(f"Piece {index} cannot be placed before the header of bag {self.bag_id.hex()} is known.")
        fd = os.open(self.directory / "header.part", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            write_all(fd, data, start)
        finally:
            os.close(fd)

    def _try_header(self) -> None:
        """Once all pieces of the header are here: parse it, lay out the files, move what follows the header."""
        info, known = self._need()
        if not all(known.have(index) for index in range(info.header_pieces)):
            return
        part = self.directory / "header.part"
        front = b""
        with contextlib.suppress(FileNotFoundError):
            front = part.read_bytes()[: info.header_pieces * info.piece_size]
        for index in range(info.header_pieces):  # power loss may have taken bytes whose bits are set
            piece = front[index * info.piece_size : (index + 1) * info.piece_size]
            try:
                check_piece(info, index, known.tree.piece_hash(index), piece)
            except BadPiece:
                known.mark(index, here=False)
        if not all(known.have(index) for index in range(info.header_pieces)):
            return
        try:
            header = BagHeader.parse(front[: info.header_size], info)
        except BadBag as exc:
            self.broken = exc.message
            raise
        try:
            self._lay_out(header)
            self._files.write(header, info.header_size, front[info.header_size :])
            write_atomically(self.directory / "header.bin", front[: info.header_size])
            self._header = header
            part.unlink()
        except OSError as exc:
            raise disk_error(exc, f"unpacking bag {self.bag_id.hex()}") from None

    def _lay_out(self, header: BagHeader) -> None:
        """Make every file with its final size, once. Files of others at these places are refused, not overwritten."""
        if self._state["layout"] == "done":
            return
        if self._state["layout"] == "none":
            ours = self.data_root.is_relative_to(self.directory)
            taken = None if ours else self._files.taken(header)
            if taken is not None:
                raise Refused(f"{taken} already exists.", hint="Download into an empty folder.")
            self._save_state("started")
        self._files.make(header)
        self._save_state("done")

    # Care.

    def sync(self) -> None:
        """Make everything written so far durable against power loss. Raises NoSpace, TonfsError."""
        with self._lock:
            try:
                self._files.sync()
                if self._known is not None:
                    self._known.sync()
                sync_folder(self.directory)
            except OSError as exc:
                raise disk_error(exc, f"syncing bag {self.bag_id.hex()}") from None

    def intact(self, index: int) -> bool:
        """Do the bytes on the disk match a piece that should be here? Changes nothing, unlike `read_piece`."""
        try:
            self._read_checked(*self._need(), index)
        except (OSError, BadPiece, BadBag):
            return False
        return True

    def restore_files(self) -> None:
        """Make files again that were deleted, so that empty ones come back too. Raises BadBag, NoSpace."""
        if self.foreign or self._header is None or self._state["layout"] != "done":
            return
        with self._lock:
            self._state = {**self._state, "layout": "started"}
            try:
                self._lay_out(self._header)
            except OSError as exc:
                raise disk_error(exc, f"restoring files of bag {self.bag_id.hex()}") from None

    def verify(self, pieces: Iterable[int] | None = None, progress: Progress | None = None) -> list[int]:
        """Read every piece (or these) that should be here; returns the bad ones, which now count as missing."""
        bad: list[int] = []
        info = self._info
        for index in self.here() if pieces is None else pieces:
            if info is not None and self.have(index):
                try:
                    self.read_piece(index)
                except Damaged:
                    bad.append(index)
                if progress is not None:
                    progress(min((index + 1) * info.piece_size, info.file_size), info.file_size)
        return bad

    def drop_data(self) -> None:
        """Delete the data; keep info, header and every known hash, so that proofs can still be made.

        Pieces that lie wholly in the header stay. Raises Refused for foreign data.
        """
        if self.foreign:
            raise Refused(f"The data of bag {self.bag_id.hex()} belongs to the user.")
        with self._lock:
            info, header, known = self._info, self._header, self._known
            if info is None or header is None or known is None:
                return
            for index in known.here():
                known.mark(index, here=index < info.header_size // info.piece_size)
            try:
                self._files.remove(header)
                self._save_state("none")
            except OSError as exc:
                raise disk_error(exc, f"dropping the data of bag {self.bag_id.hex()}") from None

    def remove(self) -> None:
        """Delete the bag's directory. Data that lies elsewhere stays."""
        with self._lock:
            self.close()
            shutil.rmtree(self.directory, ignore_errors=True)

    def close(self) -> None:
        """Let go of the maps. The object must not be used afterwards."""
        with self._lock:
            if self._known is not None:
                self._known.close()
            self._known = self._info = None


def _new_state(bag: BagId, data_root: str, *, foreign: bool, layout: str) -> dict[str, Any]:
    return {"version": _VERSION, "bag_id": bag.hex(), "data_root": data_root, "foreign": foreign, "layout": layout}


def _encode(state: dict[str, Any]) -> bytes:
    return json.dumps(state, indent=1).encode("ascii")


def _check_state(state: Any) -> None:
    """Raise ValueError, KeyError or TypeError unless `bag.json` says what it must."""
    if state["version"] != _VERSION or state["layout"] not in _LAYOUTS:
        raise ValueError(f"version {state['version']!r}, layout {state['layout']!r}")
    bag_id(state["bag_id"])
    if not isinstance(state["data_root"], str) or not isinstance(state["foreign"], bool):
        raise TypeError("data_root or foreign")
