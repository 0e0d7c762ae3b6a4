"""A body on its way in: blocks are hashed and written in order, and nobody works on it once `receive` is over."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from types import SimpleNamespace

import pytest

from tonfs.s3shim.crowd import COPIES, Crowd
from tonfs.s3shim.door import BLOCK
from tonfs.s3shim.receive import SMALL, receive


class Intake:
    """Gives `body` out in pieces of these sizes, again and again."""

    def __init__(self, body, pieces=(1 << 30,), length=None):
        self.body = memoryview(body)
        self.pieces = pieces
        self.length = length
        self.turn = 0
        self.md5 = hashlib.md5()
        self.seen = hashlib.sha1()
        self.finished = False
        self.buffers = {}

    async def fill(self, buffer):
        await asyncio.sleep(0)
        self.buffers[id(buffer.obj)] = buffer.obj  # kept, so that no other one gets its number
        count = min(len(buffer), self.pieces[self.turn % len(self.pieces)], len(self.body))
        self.turn += 1
        buffer[:count] = self.body[:count]
        self.body = self.body[count:]
        return count

    async def finish(self):
        self.finished = True

    def absorb(self, block):
        self.absorb_md5(block)
        self.absorb_rest(block)

    def absorb_md5(self, block):
        self.md5.update(block)

    def absorb_rest(self, block):
        self.seen.update(block)


class Namespace:
    def __init__(self, fail_at=-1):
        self.data = bytearray()
        self.fail_at = fail_at
        self.calls = 0
        self.inside = threading.Semaphore(1)

    def pour(self, _inode, block):
        self.calls += 1
        assert self.inside.acquire(blocking=False), "two writes at once"
        try:
            if len(self.data) >= self.fail_at >= 0:
                raise OSError("disk")
            self.data += block
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

    call = SimpleNamespace(door=SimpleNamespace(namespace=namespace, slow=slow, crowd=Crowd()))
    try:
        asyncio.run(receive(call, 7, intake))
    finally:
        assert working == 0


def body_of(size):
    return b"".join(hashlib.blake2b(n.to_bytes(8)).digest() for n in range(-(-size // 64)))[:size]


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("pieces", [(1 << 30,), (SMALL, SMALL + 1, 5, 300_000, 300_000, 1)])
def test_blocks_of_all_sizes_arrive_in_order_and_are_hashed_once(pieces, announced):
    body = body_of(3 * BLOCK + 12345)
    intake, namespace = Intake(body, pieces, len(body) if announced else None), Namespace()
    run(intake, namespace)
    assert bytes(namespace.data) == body
    assert intake.md5.hexdigest() == hashlib.md5(body).hexdigest()
    assert intake.seen.hexdigest() == hashlib.sha1(body).hexdigest()
    assert intake.finished


def test_a_body_of_any_size_takes_a_few_blocks_of_memory():
    body = body_of(12 * BLOCK)
    intake = Intake(body, length=len(body))
    run(intake, Namespace())
    assert len(intake.buffers) <= COPIES
    assert all(len(buffer) == BLOCK for buffer in intake.buffers.values())


@pytest.mark.parametrize("size", [10, BLOCK])
def test_a_write_that_fails_ends_it_after_the_threads_are_done(size):
    namespace = Namespace(fail_at=2 * size)
    with pytest.raises(OSError, match="disk"):
        run(Intake(bytes(8 * size), (size,)), namespace)
    assert namespace.calls == 3, "nothing is written behind bytes that are missing"


def test_a_client_that_goes_away_ends_it_after_the_threads_are_done():
    class Gone(Intake):
        async def fill(self, buffer):
            if not self.body:
                raise ConnectionError("gone")
            return await super().fill(buffer)

    with pytest.raises(ConnectionError, match="gone"):
        run(Gone(bytes(3 * BLOCK), length=4 * BLOCK), Namespace())
