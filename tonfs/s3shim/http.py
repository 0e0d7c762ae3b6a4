"""aiohttp's requests as questions, and answers as bytes on its connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from http import HTTPStatus
from typing import Final

import aiohttp
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from ..errors import S3Error, TonfsError
from ..log import get_logger
from .connections import Connection
from .crowd import Crowd
from .door import BLOCK, Answer
from .sigv4 import Request
from .straight import LEAST, Rest
from .uri import decode, parse_query, split_target

log = get_logger(__name__)

READ_TIMEOUT: Final = 60.0
"""Seconds without a byte of a body before the client is given up."""
CRAWL_AFTER: Final = 60.0
CRAWL_RATE: Final = 1024
"""Bytes a second, on average, that a body must come with once it takes longer than CRAWL_AFTER."""
WRITE_TIMEOUT: Final = 60.0
"""Seconds that a client may take none of what is sent to it."""
_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}
_JOIN: Final = 64 << 10
"""Up to here head and body go out in one write."""


class HttpBody:
    """`door.Body` on an aiohttp request."""

    def __init__(self, request: web.BaseRequest, question: Request, crowd: Crowd) -> None:
        self._request = request
        self._crowd = crowd
        self._question = question
        self._told = False
        self._taken = 0
        self._began = time.monotonic()
        self._rest: Rest | None = None

    @property
    def length(self) -> int | None:
        return self._request.content_length

    @property
    def chunked(self) -> bool:
        return "chunked" in (self._question.header("transfer-encoding") or "").lower()

    def _crawls(self) -> bool:
        """Whether the client only drips, to hold our memory and its place."""
        elapsed = time.monotonic() - self._began
        return elapsed > CRAWL_AFTER and self._taken < CRAWL_RATE * elapsed

    def _go_on(self) -> None:
        if self._told:
            return
        self._told = True
        if (self._question.header("expect") or "").lower() == "100-continue":
            assert self._request.transport is not None
            self._request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def read(self) -> bytes:
        with _told():
            return await self._read(self._crowd.block(BLOCK))

    async def _read(self, most: int) -> bytes:
        self._go_on()
        content = self._request.content
        data = content.read_nowait(most)
        if not data:
            async with asyncio.timeout(READ_TIMEOUT):
                data = await content.read(most)
            if data and self._crawls():
                raise TimeoutError
        self._taken += len(data)
        return data

    async def fill(self, buffer: memoryview) -> int:
        done = 0
        with _told():
            while done < len(buffer):
                if self._rest is None:
                    data = self._request.content.read_nowait(len(buffer) - done)
                    self._taken += len(data)
                    self._rest = None if data else self._straight()
                    if self._rest is None and not (data := data or await self._read(len(buffer) - done)):
                        break
                    buffer[done : done + len(data)] = data
                    done += len(data)
                else:
                    done += await self._fill_straight(self._rest, buffer[done:])
        return done

    def _straight(self) -> Rest | None:
        """Nothing waits here any more. What is still to come, when that is known and much, need not pass the parser."""
        content = self._request.content
        left = 0 if self.length is None or self.chunked or content.is_eof() else self.length - self._taken
        if left < LEAST:
            return None
        self._go_on()
        connection = self._request.protocol
        return connection.rest_of(content, left) if isinstance(connection, Connection) else None

    async def _fill_straight(self, rest: Rest, buffer: memoryview) -> int:
        """As many bytes as fit and come."""
        done, count = 0, min(len(buffer), rest.left)
        while done < count:
            came = await rest.fill(buffer[done:count], READ_TIMEOUT)
            self._taken += came
            done += came
            if not came or self._crawls():
                raise TimeoutError
        return done


@contextmanager
def _told() -> Iterator[None]:
    """What goes wrong with a body on its way, as S3 says it."""
    try:
        yield
    except TimeoutError:
        raise S3Error(
            "RequestTimeout", 400, "Your socket connection was not read from or written to in time."
        ) from None
    except (aiohttp.ClientError, web.RequestPayloadError, ConnectionError, ValueError) as exc:
        raise S3Error("IncompleteBody", 400, "The request's body could not be read to its end.") from exc


def question_of(request: web.BaseRequest) -> Request:
    """The request as it came. Raises S3Error(InvalidURI)."""
    path, query = split_target(request.raw_path)
    headers = [(_name(name), value.decode("utf-8", "surrogateescape").strip()) for name, value in request.raw_headers]
    if "%" in path:
        decode(path)
    pairs = parse_query(query) if query else []
    return Request(request.method, path, pairs, headers, has_body=request.can_read_body)


@lru_cache(512)
def _name(raw: bytes) -> str:
    return raw.decode("latin-1").lower()


@lru_cache(64)
def _start(status: int, seconds: int) -> str:
    """What all answers of a second begin with."""
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(seconds))
    return f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}\nDate: {date}\nServer: tonfs"


class Sent(web.StreamResponse):
    """What aiohttp is told once an answer is on its way: there is nothing left to send.

    aiohttp's own response costs more than everything else that a small GET does.
    """

    def __init__(self, writer: AbstractStreamWriter, keep: bool) -> None:
        # Not `super().__init__()`: it prepares headers and cookies that have been sent. What aiohttp asks of an answer
        # after its handler are the methods below, and nothing else.
        self._writer = writer
        self._keep = keep

    @property
    def keep_alive(self) -> bool:
        return self._keep

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        return self._writer

    async def write_eof(self, data: bytes = b"") -> None:
        await self._writer.write_eof()


def _head(request: web.BaseRequest, answer: Answer, request_id: str, length: int | None, keep: bool) -> bytes:
    """Status line and headers. Raises ValueError when a value would break out of its line."""
    start = _start(answer.status, int(time.time()))
    lines = [f"{name}: {value}" for name, value in answer.headers]
    lines.append(f"x-amz-request-id: {request_id}")
    lines.append(f"x-amz-id-2: {request_id}")
    if length is not None:
        lines.append(f"Content-Length: {length}")
    if not keep:
        lines.append("Connection: close")
    elif request.version < aiohttp.HttpVersion11:
        lines.append("Connection: keep-alive")
    text = "\n".join(lines)
    if "\r" in text or "\0" in text or text.count("\n") != len(lines) - 1:
        raise ValueError("a header of the answer has a line end in it")
    return f"{start}\n{text}\n\n".replace("\n", "\r\n").encode()


async def send(request: web.BaseRequest, answer: Answer, request_id: str) -> web.StreamResponse:
    """Raises ConnectionError when the client is gone, or when an answer that has begun cannot be finished."""
    # What is left of a body will not be read: then this connection ends here.
    keep = request.keep_alive and request.content.is_eof()
    body = b"" if request.method == "HEAD" else answer.body
    length = None
    if answer.status not in (204, 304):
        length = answer.length if answer.length is not None else len(body)
    head = _head(request, answer, request_id, length, keep)
    writer = request.writer
    if answer.stream is None and len(body) <= _JOIN:
        await _write(request, writer, head + body)
    else:
        await _write(request, writer, head)
        if body:
            await _write(request, writer, body)
        if answer.stream is not None:
            await _stream(request, writer, answer, request_id)
    return Sent(writer, keep)


async def _write(request: web.BaseRequest, writer: AbstractStreamWriter, data: bytes) -> None:
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    if len(data) <= _JOIN and transport.get_write_buffer_size() == 0:
        transport.write(data)
        return
    try:
        async with asyncio.timeout(WRITE_TIMEOUT):
            await writer.write(data)
    except TimeoutError:
        transport.abort()
        raise ConnectionResetError("the client does not read") from None


async def _stream(request: web.BaseRequest, writer: AbstractStreamWriter, answer: Answer, request_id: str) -> None:
    assert answer.stream is not None
    try:
        while block := await answer.stream.next():
            await _write(request, writer, block)
    except TonfsError as exc:
        # Too late for an error: the client must see that the body is not whole.
        log.info("an answer was cut", request_id=request_id, reason=exc.message)
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("cut on purpose") from None
