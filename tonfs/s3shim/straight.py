"""The rest of a large body, straight from the socket into the buffers that are hashed and written.

aiohttp's parser copies a body twice on its way and wakes its reader for every few kilobytes. Once a head was parsed
and its body has a length, the connection's transport can be given another protocol for exactly the bytes of that body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

LEAST: Final = 128 << 10
"""Fewer bytes are not worth it."""


class Rest(asyncio.BufferedProtocol):
    """Reads `left` bytes, no more, and only while somebody fills a buffer; then gives the transport back.

    Whatever else happens to the connection is told to its own protocol, too.
    """

    def __init__(
        self,
        owner: asyncio.BufferedProtocol,
        transport: asyncio.Transport,
        left: int,
        give_back: Callable[[bool], None],
    ) -> None:
        """Takes the transport over. `give_back` is called once, when it has its own protocol again: True when all
        bytes came."""
        self.left = left
        self._owner = owner
        self._transport = transport
        self._give_back = give_back
        self._buffer = memoryview(b"")
        self._at = 0
        self._full: asyncio.Future[None] | None = None
        self._reading = self._returned = False
        self._lost: Exception | None = None
        transport.pause_reading()
        transport.set_protocol(self)

    async def fill(self, buffer: memoryview, patience: float) -> int:
        """Bytes put there: all that fit, or fewer after `patience` seconds or at the end. Raises ConnectionError."""
        self._buffer, self._at = buffer[: self.left], 0
        if self._buffer and self._lost is None and not self._returned:
            self._full = asyncio.get_running_loop().create_future()
            self._read(True)
            try:
                async with asyncio.timeout(patience):
                    await self._full
            except TimeoutError:
                pass
            finally:
                self._read(False)
                self._full = None
                self._buffer = memoryview(b"")
        if self._lost is not None:
            raise self._lost
        if not self.left:
            self.release()
        return self._at

    def _read(self, wanted: bool) -> None:
        if self._reading != wanted and not self._transport.is_closing():
            self._reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def release(self) -> None:
        """Let the connection go on, also when bytes are left. Does nothing the second time."""
        if not self._returned:
            self._returned = True
            if not self._transport.is_closing():
                self._transport.set_protocol(self._owner)
            self._give_back(not self.left)

    # What the transport calls.

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer[self._at :]

    def buffer_updated(self, nbytes: int) -> None:
        self._at += nbytes
        self.left -= nbytes
        if self._at == len(self._buffer):
            self._read(False)
            self._wake()

    def _wake(self) -> None:
        if self._full is not None and not self._full.done():
            self._full.set_result(None)

    def eof_received(self) -> bool | None:
        self._lost = ConnectionResetError("the body ends too early")
        self._wake()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = self._lost or ConnectionResetError("the client is gone")
        self._wake()
        self._owner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        self._owner.resume_writing()
