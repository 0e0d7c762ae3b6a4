"""Hashing one run of pieces; this file is also the whole program of a hashing process.

What a small file costs (open, read, fstat, close) is Python between short system calls: threads only hand its lock to
and fro there, processes share the work. The program needs the standard library alone and is up in some 10 ms. It reads
jobs from its input and writes their hashes to its output, each as one value of `marshal`, until the input ends. Hence
few imports: those of `typing` alone would double the start.
"""

from __future__ import annotations

import marshal
import os
import sys
from _collections_abc import Iterator
from hashlib import sha256

CHUNK = 256 << 10
"""Read at a time: small enough to stay in the processor's cache until it is hashed."""

Job = tuple[int, int, bytes, int, list[bytes], list[int], list[int]]
"""(piece size, bytes of the run, bytes in front of the files, where to begin in the first file, and of each file its
path, size and time of change in ns). The run begins with a piece; where it ends within a piece, the bag ends."""


class Unreadable(Exception):
    """File `number` of the job cannot be read; without a reason: it is not what the scan saw."""

    def __init__(self, number: int, reason: str = "") -> None:
        super().__init__(number, reason)
        self.number = number
        self.reason = reason


def piece_hashes(job: Job) -> Iterator[bytes]:
    """sha256 of each piece of the run. Every file that the run touches must still be as scanned. Raises Unreadable."""
    piece_size, left, front, at, places, sizes, times = job
    digest, room = sha256(), piece_size
    for begin in range(0, len(front), piece_size):  # a header may fill pieces by itself
        part = front[begin : begin + piece_size]
        digest.update(part)
        room -= len(part)
        if not room:
            yield digest.digest()
            digest, room = sha256(), piece_size
    left -= len(front)
    for number, (place, size, time) in enumerate(zip(places, sizes, times, strict=True)):
        try:
            fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if at:
                    os.lseek(fd, at, os.SEEK_SET)
                end = min(size, at + left)
                left -= end - at
                while at < end:
                    data = os.read(fd, min(room, end - at, CHUNK))
                    if not data:
                        break
                    digest.update(data)
                    at += len(data)
                    room -= len(data)
                    if not room:
                        yield digest.digest()
                        digest, room = sha256(), piece_size
                status = os.fstat(fd)
            finally:
                os.close(fd)
        except OSError as exc:
            raise Unreadable(number, exc.strerror or str(exc)) from None
        if at < end or status.st_size != size or status.st_mtime_ns != time:
            raise Unreadable(number)
        at = 0
    if room != piece_size:
        yield digest.digest()


def main() -> None:
    jobs, answers = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            job: Job = marshal.load(jobs)
        except EOFError:
            return
        answer: list[bytes] | tuple[int, str]
        try:
            answer = list(piece_hashes(job))
        except Unreadable as exc:
            answer = (exc.number, exc.reason)
        marshal.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    main()
