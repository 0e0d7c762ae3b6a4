"""Serving a control socket under trio."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from ..errors import BadPacket, Busy, TonfsError, UsageError
from ..log import get_logger
from . import wire

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Takes the params, returns the result. A TonfsError becomes the error answer."""

log = get_logger(__name__)


def _claim(path: Path) -> trio.socket.SocketType:
    """Bind and listen; a socket file that nobody serves is replaced. Raises Busy when somebody does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wire.short_path(path) as name:
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            probe.connect(name)
        except OSError:
            path.unlink(missing_ok=True)
        else:
            raise Busy(f"Another process already serves {path}.", hint="Stop it first ('tonfs down').")
        finally:
            probe.close()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        old = os.umask(0o177)
        try:
            listener.bind(name)
        finally:
            os.umask(old)
    listener.listen(64)
    listener.setblocking(False)
    return trio.socket.from_stdlib_socket(listener)


def _same_user(sock: trio.socket.SocketType) -> bool:
    creds = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid = struct.unpack("3i", creds)[1]
    return uid in (0, os.getuid())


async def _answer(
    stream: trio.SocketStream, lock: trio.Lock, handlers: Mapping[str, Handler], message: dict[str, Any]
) -> None:
    number = message.get("id")
    method = message.get("method")
    params = message.get("params") or {}
    reply: dict[str, Any]
    try:
        handler = handlers.get(method) if isinstance(method, str) else None
        if handler is None or not isinstance(params, dict):
            raise UsageError(f"Unknown control method {method!r}.")
        reply = {"id": number, "result": await handler(params)}
    except TonfsError as exc:
        reply = {"id": number, "error": {"code": exc.code, "message": exc.message, "hint": exc.hint}}
    except Exception as exc:
        log.error("control handler failed", method=str(method), exc=exc)
        text = f"Internal error in {method}: {type(exc).__name__}: {exc}"
        reply = {"id": number, "error": {"code": "TF0001", "message": text, "hint": ""}}
    try:
        frame = wire.encode(reply)
    except BadPacket as exc:
        frame = wire.encode({"id": number, "error": {"code": exc.code, "message": exc.message, "hint": ""}})
    async with lock:
        try:
            await stream.send_all(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("control client left before its answer", method=str(method))


async def receive_exactly(stream: trio.SocketStream, count: int) -> bytes | None:
    """Exactly `count` bytes, or None at the end of the stream."""
    chunks: list[bytes] = []
    while count:
        try:
            chunk = await stream.receive_some(min(count, 1 << 16))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return None
        if not chunk:
            return None
        chunks.append(bytes(chunk))
        count -= len(chunk)
    return b"".join(chunks)


async def _connection(stream: trio.SocketStream, handlers: Mapping[str, Handler]) -> None:
    lock = trio.Lock()
    async with stream, trio.open_nursery() as nursery:
        while True:
            header = await receive_exactly(stream, wire.HEADER.size)
            if header is None:
                break
            try:
                body = await receive_exactly(stream, wire.length(header))
                if body is None:
                    break
                message = wire.decode(body)
            except BadPacket as exc:
                log.warning("control connection dropped", reason=exc.message)
                break
            nursery.start_soon(_answer, stream, lock, handlers, message)
        nursery.cancel_scope.cancel()


async def serve(
    path: Path,
    handlers: Mapping[str, Handler],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled. Only the same user and root may connect. A request whose client leaves is cancelled.

    Raises Busy when another live process serves the path.
    """
    sock = _claim(path)
    try:
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                connection, _ = await sock.accept()
                if not _same_user(connection):
                    connection.close()
                    continue
                nursery.start_soon(_connection, trio.SocketStream(connection), handlers)
    finally:
        sock.close()
        path.unlink(missing_ok=True)
