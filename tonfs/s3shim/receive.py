"""A body on its way into a staged file: read, hashed and written at the same time.

MD5 takes longer than everything else together, so it has a thread of its own; the other digest and the write share a
second one, while the loop reads the next block. No more than two blocks of a body are in memory.
"""

from __future__ import annotations

import asyncio
from typing import Final

from ..ids import Inode
from .body import Intake
from .door import Call

SMALL: Final = 16 << 10
"""A block up to this size is not worth a thread."""


async def receive(call: Call, staged: Inode, intake: Intake) -> None:
    """Raises S3Error, FsError, NoSpace. No thread works on the body any more when it returns, or raises."""
    namespace, slow = call.door.namespace, call.door.slow
    position = 0
    working: asyncio.Future[tuple[BaseException | None, BaseException | None]] | None = None
    try:
        async for block in intake.blocks():
            if working is not None:
                await _done(working)
                working = None
            if len(block) <= SMALL:
                intake.absorb(block)
                namespace.write(staged, position, block)
            else:

                def rest(block: bytes = block, position: int = position) -> None:
                    intake.absorb_rest(block)
                    namespace.write(staged, position, block)

                def md5(block: bytes = block) -> None:
                    intake.absorb_md5(block)

                working = asyncio.gather(slow(md5), slow(rest), return_exceptions=True)
            position += len(block)
        if working is not None:
            await _done(working)
    finally:
        if working is not None and not working.done():
            await asyncio.wait([working])


async def _done(working: asyncio.Future[tuple[BaseException | None, BaseException | None]]) -> None:
    for result in await working:
        if isinstance(result, BaseException):
            raise result
