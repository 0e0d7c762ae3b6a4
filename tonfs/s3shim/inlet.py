"""Bytes from the socket to aiohttp in small pieces: what waits in memory for a slow handler stays small, too.

As a plain protocol, a connection is given everything that TLS has deciphered, or the whole buffer of the event loop:
a quarter of a megabyte and more each, before it can ask for a pause.
"""

from __future__ import annotations

import asyncio
from typing import Final

PIECE: Final = 64 << 10
READ_AHEAD: Final = 64 << 10
"""Enciphered bytes that may wait before the socket is left alone; more than one record of TLS in any case."""


class Inlet(asyncio.BufferedProtocol):
    """In front of a protocol of the plain kind.

    `piece` is PIECE bytes, the same for all connections of a loop: what is read into it is taken out before the next
    one reads.
    """

    def __init__(self, protocol: asyncio.Protocol, piece: memoryview) -> None:
        self._protocol = protocol
        self._piece = piece
        self._take = protocol.data_received

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        limit = getattr(transport, "set_read_buffer_limits", None)  # there is one with TLS
        if limit is not None:
            limit(READ_AHEAD, READ_AHEAD // 2)
        self._protocol.connection_made(transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._piece

    def buffer_updated(self, nbytes: int) -> None:
        self._take(bytes(self._piece[:nbytes]))

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()
