"""Hashing a stream of files piece by piece: in threads, in constant memory, and going on after an interruption.

Workers take runs of consecutive pieces, so that a large file is read by all of them and small files are opened once.
sha256 lets go of Python's lock, and so do reads. Memory: one buffer of `CHUNK` bytes a worker, whatever the bag.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Final

from ..errors import Refused, Stale
from .places import disk_error
from .scan import ScannedFile

CHUNK: Final = 256 << 10
"""Read at a time: small enough to stay in the processor's cache until it is hashed."""
RUN_BYTES: Final = 4 << 20
"""What a worker takes at a time, at least one piece: enough to make handing over cheap."""
MAX_WORKERS: Final = 8
NOTES_MAGIC: Final = b"tonfs.making.1\n\0"
"""16 bytes; see docs/formats.md, "Bag store"."""

Progress = Callable[[int, int], None]
"""(bytes done, bytes in total)."""


def workers() -> int:
    return min(MAX_WORKERS, len(os.sched_getaffinity(0)))


class Notes:
    """Piece hashes of an unfinished bag, in a file: 16 bytes magic, 32 bytes fingerprint, 32 bytes a piece.

    The fingerprint covers everything that decides the hashes (names, sizes, times of the files, piece size); notes of
    another input are dropped. 32 zero bytes mean: not hashed yet. A slot never crosses a page of the disk, so a crash
    leaves it whole or empty.
    """

    _HEAD: Final = len(NOTES_MAGIC) + 32

    def __init__(self, folder: Path, fingerprint: bytes, pieces: int) -> None:
        """Raises NoSpace and other disk errors."""
        self._path = folder / f"{fingerprint.hex()}.hashes"
        head = NOTES_MAGIC + fingerprint
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if os.pread(self._fd, self._HEAD, 0) != head or os.fstat(self._fd).st_size > self._HEAD + 32 * pieces:
                os.ftruncate(self._fd, 0)
                os.pwrite(self._fd, head, 0)
        except OSError as exc:
            raise disk_error(exc, f"noting hashes in {folder}") from None

    def known(self, pieces: int) -> list[bytes]:
        """One entry a piece; empty bytes where it must be hashed."""
        data = os.pread(self._fd, 32 * pieces, self._HEAD).ljust(32 * pieces, b"\0")
        none = bytes(32)
        return [b"" if (one := data[at : at + 32]) == none else one for at in range(0, len(data), 32)]

    def keep(self, first: int, hashes: Sequence[bytes]) -> None:
        try:
            os.pwrite(self._fd, b"".join(hashes), self._HEAD + 32 * first)
        except OSError as exc:
            raise disk_error(exc, "noting hashes") from None

    def close(self, *, finished: bool) -> None:
        os.close(self._fd)
        if finished:
            self._path.unlink(missing_ok=True)


def fingerprint(files: Sequence[ScannedFile], header: bytes, piece_size: int) -> bytes:
    """What the hashes depend on, 32 bytes."""
    digest = sha256(header + piece_size.to_bytes(8, "big"))
    for entry in files:
        digest.update(entry.place + b"\0%d %d\n" % (entry.size, entry.mtime_ns))
    return digest.digest()


class StreamHasher:
    """The pieces of `header` followed by `files`. `hashes()` does the work once."""

    def __init__(
        self, header: bytes, files: Sequence[ScannedFile], piece_size: int, progress: Progress | None = None
    ) -> None:
        self._header = header
        self._files = files
        self._piece_size = piece_size
        self._progress = progress
        self._starts = list(accumulate((entry.size for entry in files), initial=len(header)))
        self.size: Final = self._starts[-1]
        self.pieces: Final = -(-self.size // piece_size)
        self._local = threading.local()
        self._stop = False

    def hashes(self, notes: Notes | None = None) -> list[bytes]:
        """sha256 of every piece, in order. Raises Refused for unreadable files, Stale when one changed, NoSpace."""
        done = notes.known(self.pieces) if notes is not None else [b""] * self.pieces
        step = max(1, RUN_BYTES // self._piece_size)
        runs = [
            (first, min(first + step, self.pieces))
            for first in range(0, self.pieces, step)
            if not all(done[first : first + step])
        ]
        left = sum(end - first for first, end in runs)
        self._report(self.pieces - left)
        count = workers()
        if count == 1 or len(runs) < 2:
            for first, end in runs:
                self._keep(first, self._hash_run(first, end), done, notes)
                left -= end - first
                self._report(self.pieces - left)
            return done
        with ThreadPoolExecutor(count, thread_name_prefix="hash") as pool:
            self._spread(pool, runs, done, notes, 2 * count)
        return done

    def _spread(
        self,
        pool: ThreadPoolExecutor,
        runs: list[tuple[int, int]],
        done: list[bytes],
        notes: Notes | None,
        ahead: int,
    ) -> None:
        waiting: dict[Future[list[bytes]], int] = {}
        ready = sum(map(bool, done))
        queue = iter(runs)
        try:
            for first, end in queue:
                waiting[pool.submit(self._hash_run, first, end)] = first
                if len(waiting) >= ahead:
                    break
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    first = waiting.pop(future)
                    found = future.result()
                    ready += sum(not one for one in done[first : first + len(found)])
                    self._keep(first, found, done, notes)
                    if (run := next(queue, None)) is not None:
                        waiting[pool.submit(self._hash_run, *run)] = run[0]
                self._report(ready)
        finally:
            self._stop = True  # after an error or Ctrl-C the workers end with their present piece
            for future in waiting:
                future.cancel()

    def _report(self, pieces: int) -> None:
        if self._progress is not None:
            self._progress(min(pieces * self._piece_size, self.size), self.size)

    @staticmethod
    def _keep(first: int, found: list[bytes], done: list[bytes], notes: Notes | None) -> None:
        done[first : first + len(found)] = found
        if notes is not None:
            notes.keep(first, found)

    # In a worker.

    def _hash_run(self, first: int, end: int) -> list[bytes]:
        buffer: memoryview | None = getattr(self._local, "buffer", None)
        if buffer is None:
            buffer = self._local.buffer = memoryview(bytearray(CHUNK))
        reader = _Reader(self._header, self._files, self._starts, first * self._piece_size)
        found = []
        try:
            for piece in range(first, end):
                if self._stop:
                    break
                left = min(self._piece_size, self.size - piece * self._piece_size)
                digest = sha256()
                while left:
                    part = buffer[: min(left, CHUNK)]
                    reader.fill(part)
                    digest.update(part)
                    left -= len(part)
                found.append(digest.digest())
        finally:
            reader.close()
        return found


class _Reader:
    """Reads the stream from a place on, file after file; each file must be as the scan saw it."""

    def __init__(self, header: bytes, files: Sequence[ScannedFile], starts: list[int], at: int) -> None:
        self._header = header
        self._files = files
        self._starts = starts
        self._at = at
        self._number = bisect_right(starts, at) - 1
        self._fd = -1

    def fill(self, target: memoryview) -> None:
        """Raises Refused, Stale."""
        filled = 0
        if self._at < len(self._header):
            part = self._header[self._at : self._at + len(target)]
            target[: len(part)] = part
            filled = len(part)
            self._number = 0
        starts = self._starts
        while filled < len(target):
            at = self._at + filled
            while at >= starts[self._number + 1]:
                self._leave()
                self._number += 1
            entry = self._files[self._number]
            if entry.size <= len(target) - filled and at == starts[self._number]:
                _read_whole(entry, target[filled : filled + entry.size])
                filled += entry.size
                continue
            if self._fd < 0:
                self._fd = _open(entry)
            count = min(len(target) - filled, starts[self._number + 1] - at)
            got = os.preadv(self._fd, [target[filled : filled + count]], at - starts[self._number])
            if not got:
                raise _changed(entry)
            filled += got
        self._at += filled

    def _leave(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                _check(self._files[self._number], fd)
            finally:
                os.close(fd)

    def close(self) -> None:
        self._leave()


def _read_whole(entry: ScannedFile, target: memoryview) -> None:
    """All of a small file. Raises Refused, Stale."""
    fd = _open(entry)
    try:
        got = os.readv(fd, [target])
        status = os.fstat(fd)
    finally:
        os.close(fd)
    if got != entry.size or status.st_size != entry.size or status.st_mtime_ns != entry.mtime_ns:
        raise _changed(entry)


def _open(entry: ScannedFile) -> int:
    try:
        return os.open(entry.place, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise Refused(f"{entry.path} cannot be read: {exc.strerror}.") from None


def _check(entry: ScannedFile, fd: int) -> None:
    status = os.fstat(fd)
    if status.st_size != entry.size or status.st_mtime_ns != entry.mtime_ns:
        raise _changed(entry)


def _changed(entry: ScannedFile) -> Stale:
    return Stale(f"{entry.path} changed while it was read.", hint="Run again when nobody writes to it.")
