"""A body on its way in: blocks are hashed and written in order, and nobody works on it once `receive` is over."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from types import SimpleNamespace

import pytest

from tonfs.s3shim.receive import SMALL, receive


class Intake:
    def __init__(self, blocks):
        self._blocks = blocks
        self.md5 = hashlib.md5()
        self.seen = b""

    async def blocks(self):
        for block in self._blocks:
            await asyncio.sleep(0)
            yield block

    def absorb(self, block):
        self.absorb_md5(block)
        self.absorb_rest(block)

    def absorb_md5(self, block):
        self.md5.update(block)

    def absorb_rest(self, block):
        self.seen += block


class Namespace:
    def __init__(self, fail_at=-1):
        self.data = bytearray()
        self.fail_at = fail_at
        self.inside = threading.Semaphore(1)

    def write(self, _inode, offset, block):
        assert self.inside.acquire(blocking=False), "two writes at once"
        try:
            if offset >= self.fail_at >= 0:
                raise OSError("disk")
            self.data[offset : offset + len(block)] = block
        finally:
            self.inside.release()


def run(intake, namespace):
    working = 0

    async def slow(function):
        nonlocal working
        working += 1
        try:
            return await asyncio.to_thread(function)
        finally:
            working -= 1

    call = SimpleNamespace(door=SimpleNamespace(namespace=namespace, slow=slow))
    try:
        asyncio.run(receive(call, 7, intake))
    finally:
        assert working == 0


def test_blocks_of_all_sizes_arrive_in_order_and_are_hashed_once():
    blocks = [bytes([n]) * size for n, size in enumerate((SMALL, SMALL + 1, 5, 300_000, 300_000, 1))]
    intake, namespace = Intake(blocks), Namespace()
    run(intake, namespace)
    whole = b"".join(blocks)
    assert bytes(namespace.data) == intake.seen == whole
    assert intake.md5.hexdigest() == hashlib.md5(whole).hexdigest()


@pytest.mark.parametrize("size", [10, 300_000])
def test_a_write_that_fails_ends_it_after_the_threads_are_done(size):
    with pytest.raises(OSError, match="disk"):
        run(Intake([bytes(size)] * 4), Namespace(fail_at=2 * size))
