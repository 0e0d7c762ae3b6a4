"""Packs: many files, or ranges of large ones, in one bag, with a manifest (docs/formats.md, "Pack").

A pack is the directory bag `pack/` of two files: `data`, the packed ranges one behind the other, and
`manifest.json`, which says whose they are. Everything needed to find a file's bytes again is in the bag itself.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from ..bag import BagHeader, PieceTree
from ..errors import BadData, Stale
from ..ids import Inode
from .create import CreatedBag, HashWriter, describe
from .hash_run import CHUNK
from .hashing import Progress
from .places import disk_error, sync_folder, write_atomically
from .stored import StoredBag

PACK_DIR: Final = b"pack/"
DATA_NAME: Final = b"data"
MANIFEST_NAME: Final = b"manifest.json"
PACK_PIECE: Final = 131072
DRAFT_PREFIX: Final = ".draft-"

_VERSION: Final = 1
_FORMAT: Final = "tonfs.pack"
_MAX_MANIFEST: Final = 256 << 20
_MAX_PATH: Final = 1 << 16
_MAX_VALUE: Final = 1 << 63
_HEX: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class PackRange:
    """`length` bytes from `file_offset` of a file lie at `pack_offset` of the pack's `data`."""

    file_offset: int
    length: int
    pack_offset: int
    sha256: bytes


@dataclass(frozen=True)
class PackEntry:
    """One file (or a part of it) in a pack. `path` is its name in the volume when it was packed."""

    inode: Inode
    version: int
    path: str
    mode: int
    mtime_ns: int
    size: int
    ranges: tuple[PackRange, ...]


@dataclass(frozen=True)
class PackManifest:
    """`created` is UTC in RFC 3339; `data_size` the length of `data`."""

    created: str
    data_size: int
    entries: tuple[PackEntry, ...]
    version: int = _VERSION

    def to_bytes(self) -> bytes:
        """ASCII JSON, one entry a line. Names that are not UTF-8 appear as lone surrogates."""
        head = {"format": _FORMAT, "version": self.version, "created": self.created, "data_size": self.data_size}
        lines = [json.dumps(_entry_json(entry), separators=(",", ":")) for entry in self.entries]
        body = ",\n".join(lines)
        return f'{json.dumps(head)[:-1]}, "entries": [\n{body}\n]}}\n'.encode("ascii")

    @classmethod
    def parse(cls, data: bytes) -> PackManifest:
        """Raises BadData unless every field has its type, and every range lies inside `data`."""
        if len(data) > _MAX_MANIFEST:
            raise BadData(f"A pack's manifest has {len(data)} bytes, over the limit of {_MAX_MANIFEST}.")
        try:
            value = json.loads(data.decode("ascii"))
            if value["format"] != _FORMAT or value["version"] != _VERSION:
                raise BadData(f"A pack has format {value['format']!r}, version {value['version']!r}.")
            size = _number(value["data_size"])
            entries = tuple(_parse_entry(entry, size) for entry in _of(list, value["entries"]))
            return cls(_of(str, value["created"]), size, entries)
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as exc:
            raise BadData(f"A pack's manifest is malformed: {type(exc).__name__} {str(exc)[:80]}") from None


def _entry_json(entry: PackEntry) -> dict[str, Any]:
    return {
        "inode": entry.inode,
        "version": entry.version,
        "path": entry.path,
        "mode": entry.mode,
        "mtime_ns": entry.mtime_ns,
        "size": entry.size,
        "ranges": [[one.file_offset, one.length, one.pack_offset] for one in entry.ranges],
        "sha256": [one.sha256.hex() for one in entry.ranges],
    }


def _of(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{kind.__name__} expected")
    return value


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MAX_VALUE:
        raise ValueError("a number is out of range")
    return value


def _parse_entry(value: Any, data_size: int) -> PackEntry:
    path = _of(str, value["path"])
    hashes = _of(list, value["sha256"])
    ranges = []
    if len(path) > _MAX_PATH or len(hashes) != len(_of(list, value["ranges"])):
        raise ValueError("a path is too long, or ranges and hashes do not go together")
    for triple, digest in zip(value["ranges"], hashes, strict=True):
        if len(_of(list, triple)) != 3 or not _HEX.fullmatch(_of(str, digest)):
            raise ValueError("a range is malformed")
        one = PackRange(_number(triple[0]), _number(triple[1]), _number(triple[2]), bytes.fromhex(digest))
        if one.pack_offset + one.length > data_size or one.file_offset + one.length > _MAX_VALUE:
            raise ValueError("a range lies outside the pack")
        ranges.append(one)
    mtime = value["mtime_ns"]
    if type(mtime) is not int or abs(mtime) >= _MAX_VALUE:
        raise ValueError("mtime_ns is out of range")
    return PackEntry(
        inode=Inode(_number(value["inode"])),
        version=_number(value["version"]),
        path=path,
        mode=_number(value["mode"]),
        mtime_ns=mtime,
        size=_number(value["size"]),
        ranges=tuple(ranges),
    )


# Writing.


@dataclass(frozen=True)
class PackInput:
    """A file to pack: `ranges` are (offset, length) in the file, `sources` the (path, offset) where each can be read.
    Keys as `front.sock dirty` gives them."""

    inode: Inode
    version: int
    path: str
    mode: int
    mtime_ns: int
    size: int
    ranges: tuple[tuple[int, int], ...]
    sources: tuple[tuple[Path, int], ...]


Reader = Callable[[Path, int, int], Iterator[bytes]]
"""(path, offset, length) -> the bytes, in chunks; raises OSError or stops short when they are not there any more."""


@dataclass(frozen=True)
class PackExtent:
    """What `commit_pack` needs for one file."""

    inode: Inode
    version: int
    ranges: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class WrittenPack:
    """A finished pack. `dropped` are inodes whose bytes vanished while they were read; pack those again later."""

    bag: StoredBag
    manifest: PackManifest
    extents: tuple[PackExtent, ...]
    dropped: tuple[Inode, ...] = field(default=())


def read_content(path: Path, offset: int, length: int) -> Iterator[bytes]:
    """The default reader: files on this machine."""
    with open(path, "rb", buffering=0) as stream:
        stream.seek(offset)
        while length:
            chunk = stream.read(min(CHUNK, length))
            if not chunk:
                return
            length -= len(chunk)
            yield chunk


def clean_drafts(packs_dir: Path) -> int:
    """Delete what a crash left of unfinished packs; returns how many."""
    drafts = list(packs_dir.glob(DRAFT_PREFIX + "*"))
    for draft in drafts:
        shutil.rmtree(draft, ignore_errors=True)
    return len(drafts)


def write_pack(
    packs_dir: Path,
    entries: Sequence[PackInput],
    *,
    created: str,
    reader: Reader = read_content,
    piece_size: int = PACK_PIECE,
    progress: Progress | None = None,
) -> WrittenPack:
    """Write the pack of these ranges to `packs_dir/<bag hex>/`, complete and durable, or nothing at all.

    `created` is a RFC 3339 time. The caller has to make sure that versions still hold when it commits the extents.
    Raises NoSpace, Stale when not one file could be read whole.
    """
    draft = packs_dir / f"{DRAFT_PREFIX}{secrets.token_hex(8)}"
    try:
        folder = draft / "files" / "pack"
        folder.mkdir(parents=True)
        return _write(draft, folder, entries, created, reader, piece_size, progress)
    except OSError as exc:
        raise disk_error(exc, "writing a pack") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write(
    draft: Path,
    folder: Path,
    entries: Sequence[PackInput],
    created: str,
    reader: Reader,
    piece_size: int,
    progress: Progress | None,
) -> WrittenPack:
    names = (DATA_NAME, MANIFEST_NAME)
    hasher = HashWriter(piece_size, BagHeader(PACK_DIR, names, (0, 0)).size)
    kept: list[PackEntry] = []
    dropped: list[Inode] = []
    total = sum(length for entry in entries for _, length in entry.ranges)
    with open(folder / "data", "wb") as out:

        def put(chunk: bytes) -> None:
            out.write(chunk)
            hasher.write(chunk)
            if progress is not None:
                progress(hasher.written, total)

        for entry in entries:
            packed = _copy(entry, reader, put, lambda: hasher.written)
            if packed is None:
                dropped.append(entry.inode)
            else:
                kept.append(packed)
        out.flush()
        os.fsync(out.fileno())
    if not kept:
        raise Stale("Every file of this pack changed while it was read.")
    manifest = PackManifest(created, hasher.written, tuple(kept))
    body = manifest.to_bytes()
    header = BagHeader(PACK_DIR, names, (manifest.data_size, len(body)))
    if (header.size + header.data_size) % piece_size == 0:  # would crash Go daemons (reference protocol 1.7)
        body += b" "
        header = BagHeader(PACK_DIR, names, (manifest.data_size, len(body)))
    hasher.write(body)
    write_atomically(folder / "manifest.json", body)
    tree = PieceTree(hasher.finish(header.to_bytes()))
    info = describe(header, tree, piece_size)
    files = [(name, os.fsencode(folder / name.decode())) for name in names]
    StoredBag.create(draft, CreatedBag(info, header, tree, files, draft / "files")).close()
    final = draft.parent / info.bag_id.hex()
    if not final.exists():  # else it is this very bag, finished before
        for path in (folder, folder.parent, draft):
            sync_folder(path)
        os.rename(draft, final)
        sync_folder(final.parent)
    extents = tuple(
        PackExtent(one.inode, one.version, tuple((r.file_offset, r.length, r.pack_offset) for r in one.ranges))
        for one in kept
    )
    return WrittenPack(StoredBag.open(final), manifest, extents, tuple(dropped))


def _copy(
    entry: PackInput, reader: Reader, put: Callable[[bytes], None], position: Callable[[], int]
) -> PackEntry | None:
    """Copy a file's ranges into the pack; None when they could not be read whole (what was copied stays as waste)."""
    ranges = []
    for (offset, length), (path, place) in zip(entry.ranges, entry.sources, strict=True):
        start, digest = position(), sha256()
        chunks: Iterator[bytes] | None = None
        while True:
            try:
                chunks = chunks or reader(path, place, length)
                chunk = next(chunks, None)
            except OSError:
                return None
            if chunk is None:
                break
            put(chunk)  # outside the try: an error of our own disk is not the file's fault
            digest.update(chunk)
        if position() - start != length:
            return None
        ranges.append(PackRange(offset, length, start, digest.digest()))
    return PackEntry(entry.inode, entry.version, entry.path, entry.mode, entry.mtime_ns, entry.size, tuple(ranges))
