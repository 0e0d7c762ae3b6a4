"""A body on its way into a staged file: read, hashed and written at the same time.

MD5 takes longer than everything else together, so it has a thread of its own; the other digest and the write share a
second one, while the loop fills the next block. No more than `crowd.COPIES` blocks of a body are in memory, and they
are used again and again.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial

from ..errors import FsError, NoSpace
from ..ids import Inode
from .body import SMALL, Digests, Intake
from .crowd import COPIES
from .door import BLOCK, Call, Slow
from .store import refusal


@dataclass
class Staged:
    """A file without a name. Set `kept` once something else keeps it alive."""

    inode: Inode
    kept: bool = False


@contextmanager
def staging(call: Call) -> Iterator[Staged]:
    """A staged file, discarded in the end unless it was kept. What the volume refuses comes out as S3Error."""
    namespace = call.door.namespace
    try:
        staged = Staged(namespace.stage(call.door.uid, call.door.gid))
        try:
            yield staged
        finally:
            if not staged.kept:
                namespace.discard(staged.inode)
    except (FsError, NoSpace) as exc:
        raise refusal(exc) from exc


@asynccontextmanager
async def received(call: Call, intake: Intake) -> AsyncIterator[tuple[Staged, Digests]]:
    """The request's body in a staged file, everything that was promised about it found true. Raises S3Error."""
    with staging(call) as staged:
        await receive(call, staged.inode, intake)
        yield staged, intake.verify()


class _Work:
    """One block; done when each lane has finished its piece. For the loop: `done`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pieces: int) -> None:
        self.done = loop.create_future()
        self._loop = loop
        self._lock = threading.Lock()
        self._left = pieces
        self._error: BaseException | None = None

    def finish(self, error: BaseException | None) -> None:
        """From any thread."""
        with self._lock:
            self._left -= 1
            self._error = self._error or error
            if self._left:
                return
        self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        if self.done.done():
            return
        if self._error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(self._error)


class _Lane:
    """Does the pieces that it is given one after the other in a worker thread, which does not go back to the loop
    between two of them. After one that failed none is begun."""

    def __init__(self, slow: Slow) -> None:
        self._slow = slow
        self._lock = threading.Lock()
        self._pieces: deque[tuple[Callable[[], None], _Work]] = deque()
        self._busy = False
        self._error: BaseException | None = None
        self._thread: asyncio.Future[None] | None = None

    def add(self, piece: Callable[[], None], work: _Work) -> None:
        with self._lock:
            self._pieces.append((piece, work))
            begin, self._busy = not self._busy, True
        if begin:
            self._thread = asyncio.ensure_future(self._slow(self._run))

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._pieces:
                    self._busy = False
                    return
                piece, work = self._pieces.popleft()
            try:
                if self._error is None:
                    piece()
            except BaseException as exc:
                self._error = exc
            work.finish(self._error)

    async def stop(self) -> None:
        """What was not begun is given up; afterwards no thread works here any more."""
        with self._lock:
            self._pieces.clear()
        if self._thread is not None:
            await asyncio.wait([self._thread])


async def receive(call: Call, staged: Inode, intake: Intake) -> None:
    """Raises S3Error, FsError, NoSpace. No thread works on the body any more when it returns, or raises."""
    if intake.length is not None and intake.length <= SMALL:
        await _receive_small(call, staged, intake, intake.length)
    else:
        await _receive_large(call, staged, intake)


async def _receive_small(call: Call, staged: Inode, intake: Intake, length: int) -> None:
    data = memoryview(bytearray(length))
    data = data[: await intake.fill(data)]
    intake.absorb(data)
    call.door.namespace.pour(staged, data)
    await intake.finish()


async def _receive_large(call: Call, staged: Inode, intake: Intake) -> None:
    door = call.door
    loop = asyncio.get_running_loop()
    lanes = md5, rest = _Lane(door.slow), _Lane(door.slow)
    working: deque[tuple[bytearray, _Work]] = deque()
    spare = bytearray()
    left = intake.length

    def absorb_and_write(data: memoryview) -> None:
        intake.absorb_rest(data)
        door.namespace.pour(staged, data)

    door.crowd.enter()
    try:
        while left != 0:
            while len(working) >= COPIES - 1:
                spare, work = working.popleft()
                await work.done
            size = door.crowd.block(BLOCK)
            size = size if left is None else min(size, left)
            block, spare = (spare if len(spare) == size else bytearray(size)), bytearray()
            data = memoryview(block)
            data = data[: await intake.fill(data)]
            if not data:
                break
            left = None if left is None else left - len(data)
            work = _Work(loop, len(lanes))
            working.append((block, work))
            md5.add(partial(intake.absorb_md5, data), work)
            rest.add(partial(absorb_and_write, data), work)
        await intake.finish()
        for _, work in working:
            await work.done
    finally:
        door.crowd.leave()
        for lane in lanes:
            await lane.stop()
        for _, work in working:
            if not work.done.cancel():
                work.done.exception()
