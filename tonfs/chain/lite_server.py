"""One connection to one lite server: pytoniq's LiteClient for handshake, encryption and requests; its quirks end here.

Runs in an asyncio loop (the bridge's). What is replaced, and why:
* its listener takes frames of any length, guesses types inside answers and dies with errors nobody reads: here frames
  are bounded and answers stay bytes for `lite_tl`;
* its updater and pinger are tasks whose errors are never retrieved: here one pinger, ended with the connection;
* its futures are left behind when a connection ends: here every waiter is told.

Errors out of `query`: OSError (no connection, or lost), TimeoutError, `lite_tl.ServerError` is the caller's to find.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import json
import os
import socket
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..errors import UsageError
from ..log import get_logger

with warnings.catch_warnings():
    # Its dependencies complain about each other's versions at import; nothing of theirs is used.
    warnings.simplefilter("ignore")
    from pytoniq.liteclient.client import LiteClient

log = get_logger(__name__)

MAX_FRAME: Final = 8 << 20
PING_EVERY: Final = 5.0
SILENT_AFTER: Final = 20.0
"""A connection on which nothing came for this long, pings unanswered, is given up."""

_ANSWER: Final = (0x0FAC8416).to_bytes(4, "little")
_PONG: Final = (0xDC69FB03).to_bytes(4, "little")


@dataclass(frozen=True)
class ServerAddress:
    """Where a lite server is and which key it must have."""

    host: str
    port: int
    key: bytes

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def read_config(source: Mapping[str, Any] | str | os.PathLike[str]) -> list[ServerAddress]:
    """The lite servers of a `global.config.json`, given as its object or its path. Raises UsageError."""
    config: Any = source
    if not isinstance(source, Mapping):
        path = Path(source)
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except OSError as exc:
            raise UsageError(f"The global config {path} cannot be read: {exc.strerror}.") from None
        except ValueError as exc:
            raise UsageError(f"The global config {path} is not JSON: {exc}.") from None
    try:
        servers = [_server(entry) for entry in config["liteservers"]]
    except (KeyError, TypeError, ValueError, struct.error, binascii.Error) as exc:
        raise UsageError(f"The global config's list of lite servers is malformed: {exc!r}.") from None
    if not servers:
        raise UsageError("The global config names no lite server.")
    return servers


def _server(entry: Mapping[str, Any]) -> ServerAddress:
    key = base64.b64decode(entry["id"]["key"], validate=True)
    if len(key) != 32 or not 0 < int(entry["port"]) < 65536:
        raise ValueError("a key has 32 bytes, a port lies below 65536")
    # The format's signed int32; files with unsigned numbers exist too.
    return ServerAddress(socket.inet_ntoa(struct.pack(">I", int(entry["ip"]) & 0xFFFFFFFF)), int(entry["port"]), key)


class LiteServer(LiteClient):  # type: ignore[misc]
    """A connection that is opened by the first query and again by the first one after it was lost."""

    def __init__(self, address: ServerAddress, *, timeout: float) -> None:
        super().__init__(
            address.host, address.port, base64.b64encode(address.key).decode(), timeout=timeout, trust_level=1
        )
        self.address = address
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None
        self._waiting: dict[bytes, asyncio.Future[bytes]] = {}
        self._hello: asyncio.Future[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._heard = 0.0
        self._lock = asyncio.Lock()

    # Connecting and closing.

    async def connect(self) -> None:
        """Raises OSError, TimeoutError."""
        await self.close()
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self.timeout):
            self.reader, self.writer = await asyncio.open_connection(self.address.host, self.address.port)
            try:
                self._hello = loop.create_future()
                self._heard = loop.time()
                self.writer.write(self.handshake())
                self._tasks = [loop.create_task(self.listen()), loop.create_task(self.ping())]
                await self._hello
            except BaseException:
                await self.close()
                raise
        self.inited = True

    async def close(self) -> None:
        """Idempotent; every waiting query ends with ConnectionError."""
        self.inited = False
        tasks, self._tasks = self._tasks, []
        current = asyncio.current_task()
        for task in tasks:
            if task is not current:
                task.cancel()
        writer, self.writer, self.reader = self.writer, None, None
        if writer is not None:
            writer.transport.abort()
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), 1.0)
        self._fail("the connection is closed")
        for task in tasks:
            if task is not current:
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def _fail(self, why: str) -> None:
        """Tell everybody who waits on this connection."""
        waiting: list[asyncio.Future[Any]] = list(self._waiting.values())
        if self._hello is not None:
            waiting.append(self._hello)
        self._waiting.clear()
        self._hello = None
        for future in waiting:
            if not future.done():
                future.set_exception(ConnectionError(f"{self.address}: {why}"))
                future.exception()  # the waiter may have left

    # Frames.

    async def listen(self) -> None:
        """Read frames until the connection ends or breaks the rules."""
        why = "the server closed the connection"
        reader = self.reader
        assert reader is not None
        try:
            while True:
                size = int.from_bytes(self.decrypt(await reader.readexactly(4)), "little")
                if not 64 <= size <= MAX_FRAME:
                    why = f"the server sent a frame of {size} bytes"
                    break
                frame = self.decrypt(await reader.readexactly(size))
                if hashlib.sha256(frame[:-32]).digest() != frame[-32:]:
                    why = "the server sent a frame with a wrong checksum"
                    break
                self._take(frame[32:-32])
        except (OSError, EOFError):
            pass
        finally:
            self.inited = False
            self._fail(why)
            if self.writer is not None:
                self.writer.transport.abort()

    def _take(self, data: bytes) -> None:
        self._heard = asyncio.get_running_loop().time()
        if not data:
            if self._hello is not None and not self._hello.done():
                self._hello.set_result(None)
            return
        if data[:4] == _ANSWER and len(data) >= 40:
            future = self._waiting.pop(data[4:36], None)
            if future is not None and not future.done():
                future.set_result(_tl_bytes(data[36:]))
        elif data[:4] != _PONG:
            log.debug("unknown packet from a lite server", server=str(self.address), constructor=data[:4].hex())

    async def ping(self) -> None:
        """Keep the connection open, and notice when it is dead."""
        loop = asyncio.get_running_loop()
        while self.writer is not None and not self.writer.transport.is_closing():
            await asyncio.sleep(PING_EVERY)
            if self.writer is None:
                return
            if loop.time() - self._heard > SILENT_AFTER:
                self.writer.transport.abort()
                return
            packet, _ = self.get_ping_query()
            self.writer.write(packet)

    # Queries.

    async def query(
        self, name: str, data: Mapping[str, object], *, timeout: float, wait_seqno: int | None = None
    ) -> bytes:
        """The answer to `liteServer.<name>`, still TL bytes.

        With `wait_seqno` the server first waits (as long as our time-out allows) for that masterchain block.
        Raises OSError, TimeoutError.
        """
        async with asyncio.timeout(timeout):
            async with self._lock:
                if not self.inited:
                    await self.connect()
            body = self.schemas.serialize(self.schemas.get_by_name("liteServer." + name), data)
            if wait_seqno is not None:
                wait = {"seqno": wait_seqno, "timeout_ms": max(1, int(1000 * (timeout - 1)))}
                prefix = self.schemas.get_by_name("liteServer.waitMasterchainSeqno")
                body = self.schemas.serialize(prefix, wait) + body
            query_id = os.urandom(32)
            wrapped = self.schemas.serialize(self.ls_query_sch, {"data": body})
            packet = self.schemas.serialize(self.adnl_query_sch, {"query_id": query_id[::-1], "query": wrapped})
            future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            self._waiting[query_id] = future
            try:
                if self.writer is None or not self.inited:
                    raise ConnectionError(f"{self.address}: the connection is closed")
                self.writer.write(self.encrypt(self.serialize_packet(packet)))
                await self.writer.drain()
                return await future
            finally:
                self._waiting.pop(query_id, None)


def _tl_bytes(data: bytes) -> bytes:
    """TL `bytes` at the start of an answer; empty when it is cut off (which no answer type accepts)."""
    size, head = data[0], 1
    if size == 254:
        size, head = int.from_bytes(data[1:4], "little"), 4
    elif size == 255:
        size, head = int.from_bytes(data[1:8], "little"), 8
    return data[head : head + size] if head + size <= len(data) else b""
