"""aiohttp's connections with our limits: headers that drip, clients without number, words that are not HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import StreamReader, web
from aiohttp.http import HttpRequestParser

from . import xml
from .inlet import PIECE, Inlet
from .straight import Rest

IDLE: Final = 60.0
"""Seconds that a connection may take for a whole request head, or wait between two requests."""
PATROL: Final = 0.5
"""Seconds between two looks at all connections."""
LINGER: Final = 2.0
MAX_CONNECTIONS: Final = 2048

_ids = random.Random()
"""Request ids are for finding a request in the log; they need not be secret."""


def new_request_id() -> str:
    return f"{_ids.getrandbits(64):016X}"


def _quiet_logger() -> logging.Logger:
    """aiohttp writes a traceback for each malformed request, which anybody could use to fill our log."""
    logger = logging.getLogger("tonfs.s3shim.http")
    logger.setLevel(logging.CRITICAL)
    return logger


class Connection(web.RequestHandler):
    """Answers what is not HTTP with an error as S3 has them, and lets large bodies pass its parser by."""

    __slots__ = ("_idle", "_rest", "inlet")

    def __init__(self, manager: Connections, piece: memoryview, **words: Any) -> None:
        super().__init__(manager, **words)
        self._rest: Rest | None = None
        self.inlet = Inlet(self, piece)
        self._idle = manager.idle

    def rest_of(self, content: StreamReader, left: int) -> Rest | None:
        """What is still to come of the request's body, `left` bytes, of which the parser has seen nothing yet."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return None

        def give_back(whole: bool) -> None:
            self._rest = None
            if whole and self._parser is not None:
                # The old parser still waits for the body. It never saw these bytes, nor anything behind them.
                self._parser = self._new_parser()
                content.feed_eof()  # reads on
            elif self.transport is not None:
                self.transport.resume_reading()

        self._rest = Rest(self.inlet, transport, left, give_back)
        return self._rest

    def _new_parser(self) -> HttpRequestParser:
        """As aiohttp makes it for a new connection."""
        return HttpRequestParser(
            self,
            self._loop,
            self._read_bufsize,
            max_line_size=self.max_line_size,
            max_field_size=self.max_field_size,
            max_headers=self.max_headers,
            payload_exception=web.RequestPayloadError,
            auto_decompress=False,
            max_msg_queue_size=self._max_msg_queue_size,
        )

    def begin(self) -> None:
        """A whole head has come."""
        self._idle.pop(self, None)

    def end(self) -> None:
        """The answer is out."""
        if self.transport is not None:
            self._idle[self] = self._loop.time()

    def take_back(self) -> None:
        """Nobody reads the body any more: what is left of it goes to the parser, until the connection is closed."""
        if self._rest is not None:
            self._rest.release()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        code, text = "InternalError", "We encountered an internal error. Please try again."
        if status < 500:
            code, text = "BadRequest", "An error occurred when parsing the HTTP request."
        request_id = new_request_id()
        answer = web.Response(
            status=status,
            body=xml.error_document(code, text, "", request_id),
            content_type="application/xml",
            headers={"Server": "tonfs", "x-amz-request-id": request_id, "x-amz-id-2": request_id},
        )
        answer.force_close()
        return answer


class Connections(web.Server):
    """All connections of a door."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        self._words: dict[str, Any] = {
            "access_log": None,
            "logger": _quiet_logger(),
            # The bytes of an object are stored as they come, also gzipped ones.
            "auto_decompress": False,
            "keepalive_timeout": IDLE,
            "lingering_time": LINGER,
            "read_bufsize": PIECE,
        }
        super().__init__(handler, **self._words)
        self._piece = memoryview(bytearray(PIECE))
        self.idle: dict[web.RequestHandler, float] = {}
        """Connections that answer nothing just now -> since when (seconds of the loop), in this order."""
        self._patrol: asyncio.Task[None] | None = None

    def __call__(self) -> Inlet:  # type: ignore[override]  # to asyncio one protocol is as good as another
        return Connection(self, self._piece, loop=asyncio.get_running_loop(), **self._words).inlet

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self.connections) > MAX_CONNECTIONS:
            oldest = next(iter(self.idle), handler)
            self.idle.pop(oldest, None)
            if oldest is handler or oldest.transport is None:
                transport.abort()
                return
            oldest.transport.abort()
        self.idle[handler] = asyncio.get_running_loop().time()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self.idle.pop(handler, None)

    def start_patrol(self, every_round: Callable[[], None]) -> None:
        async def patrol() -> None:
            loop = asyncio.get_running_loop()
            while True:
                await asyncio.sleep(PATROL)
                every_round()
                limit = loop.time() - IDLE
                for connection in [one for one, since in self.idle.items() if since < limit]:
                    connection.force_close()

        self._patrol = asyncio.get_running_loop().create_task(patrol())

    async def stop_patrol(self) -> None:
        if self._patrol is not None:
            self._patrol.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._patrol
