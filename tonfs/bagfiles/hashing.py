"""Hashing a stream of files piece by piece: in threads, in constant memory, and going on after an interruption.

Threads take runs of consecutive pieces, so that a large file is read by all of them and small files are opened once.
sha256 lets go of Python's lock, and so do reads. Runs of many small files are Python most of the time; when a bag has
many of them, the threads beside the first hand such runs to processes of their own. Memory: a few reads of
`hash_run.CHUNK` bytes a thread, whatever the bag.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import subprocess
import sys
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Final

from ..errors import Refused, Stale
from . import hash_run
from .hash_run import Job, Unreadable, piece_hashes
from .places import disk_error
from .scan import ScannedFiles

RUN_BYTES: Final = 4 << 20
RUN_BYTES_MAX: Final = 16 << 20
"""What a worker takes at a time, at least one piece: enough to make handing over cheap, more of a large bag."""
RUNS: Final = 64
"""So many of them are enough that all workers end at about the same time."""
MAX_WORKERS: Final = 8
MAX_PROCESSES: Final = 2
"""They have 10 MB each."""
MANY_IN_A_RUN: Final = 100
"""Files in a run that a process may take."""
WORTH_PROCESSES: Final = 2000
"""Files in a bag that are worth the start of processes, 10 ms each."""
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
        self.path: Final = folder / f"{fingerprint.hex()}.hashes"
        head = NOTES_MAGIC + fingerprint
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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

    def close(self) -> None:
        """The file stays: whoever keeps the bag deletes it."""
        os.close(self._fd)


def fingerprint(files: ScannedFiles, header: bytes, piece_size: int) -> bytes:
    """What the hashes depend on, 32 bytes."""
    digest = sha256(header + piece_size.to_bytes(8, "big"))
    for three in zip(files.places, files.sizes, files.times, strict=True):
        digest.update(b"%b\0%d %d\n" % three)
    return digest.digest()


class StreamHasher:
    """The pieces of `header` followed by `files`. `hashes()` does the work once."""

    def __init__(self, header: bytes, files: ScannedFiles, piece_size: int, progress: Progress | None = None) -> None:
        self._header = header
        self._files = files
        self._piece_size = piece_size
        self._progress = progress
        self._starts = list(accumulate(files.sizes, initial=len(header)))
        self.size: Final = self._starts[-1]
        self.pieces: Final = -(-self.size // piece_size)
        self._stop = False
        self._lock = threading.Lock()
        self._local = threading.local()
        self._turns = 0
        self._children: list[HashingProcess] = []

    def hashes(self, notes: Notes | None = None) -> list[bytes]:
        """sha256 of every piece, in order. Raises Refused for unreadable files, Stale when one changed, NoSpace."""
        done = notes.known(self.pieces) if notes is not None else [b""] * self.pieces
        step = max(1, min(max(RUN_BYTES, self.size // RUNS), RUN_BYTES_MAX) // self._piece_size)
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
        try:
            with ThreadPoolExecutor(count, thread_name_prefix="hash") as pool:
                self._spread(pool, runs, done, notes, 2 * count)
        finally:
            for child in self._children:
                child.stop()
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

    # In a thread.

    def _hash_run(self, first: int, end: int) -> list[bytes]:
        """Raises Refused, Stale."""
        number, job = self._job(first, end)
        try:
            child = self._child() if len(job[4]) >= MANY_IN_A_RUN else None
            if child is not None and (found := child.hashes(job)) is not None:
                return found
            found = []
            for one in piece_hashes(job):
                found.append(one)
                if self._stop:
                    break
            return found
        except Unreadable as exc:
            path = self._files.path(number + exc.number)
            if exc.reason:
                raise Refused(f"{path} cannot be read: {exc.reason}.") from None
            raise Stale(f"{path} changed while it was read.", hint="Run again when nobody writes to it.") from None

    def _job(self, first: int, end: int) -> tuple[int, Job]:
        """What hashing these pieces takes, and the number of its first file."""
        size, files, starts = self._piece_size, self._files, self._starts
        begin, stop = first * size, min(end * size, self.size)
        one = max(0, bisect_right(starts, begin) - 1)
        other = bisect_left(starts, stop)
        front = self._header[begin:stop]
        at = max(0, begin - starts[one])
        columns = files.places[one:other], files.sizes[one:other], files.times[one:other]
        return one, (size, stop - begin, front, at, *columns)

    def _child(self) -> HashingProcess | None:
        """The process of this thread, when it has one: the first thread hashes by itself."""
        if len(self._files.names) < WORTH_PROCESSES:
            return None
        child: HashingProcess | None = getattr(self._local, "child", None)
        if child is None and not hasattr(self._local, "turn"):
            with self._lock:
                self._local.turn = self._turns
                self._turns += 1
            if 0 < self._local.turn <= MAX_PROCESSES:
                child = self._local.child = HashingProcess()
                self._children.append(child)
        return child


class HashingProcess:
    """A child that hashes jobs, one at a time. One that cannot be had or has died only costs its help."""

    def __init__(self) -> None:
        words = [sys.executable, "-I", "-S", hash_run.__file__]
        self._process: subprocess.Popen[bytes] | None = None
        with contextlib.suppress(OSError):  # a session of its own: Ctrl-C is for us
            self._process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
            )

    def hashes(self, job: Job) -> list[bytes] | None:
        """None: the child does not work, do it yourself. Raises Unreadable."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return None
        try:
            marshal.dump(job, process.stdin)
            process.stdin.flush()
            answer: list[bytes] | tuple[int, str] = marshal.load(process.stdout)
        except (OSError, EOFError, ValueError, TypeError):
            self.stop()
            return None
        if isinstance(answer, tuple):
            raise Unreadable(*answer)
        return answer

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()
