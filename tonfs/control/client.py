"""Calling a control socket: a trio client that reconnects, and one blocking call for short-lived commands."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import trio

from ..errors import BadPacket, NotRunning, TimedOut, denied, from_code
from . import wire
from .server import receive_exactly


def _unwrap(reply: dict[str, Any]) -> dict[str, Any]:
    error = reply.get("error")
    if isinstance(error, dict):
        raise from_code(str(error.get("code")), str(error.get("message")), str(error.get("hint") or ""))
    result = reply.get("result")
    if not isinstance(result, dict):
        raise BadPacket("A control answer has neither result nor error.")
    return result


class ControlClient:
    """Many calls over one connection; a lost connection is opened again by the next call.

    Run `await nursery.start(client.run)` for its life; calls are safe from many tasks.
    """

    def __init__(self, path: Path, *, who: str) -> None:
        self._path = path
        self._who = who
        self._stream: trio.SocketStream | None = None
        self._waiting: dict[int, tuple[trio.Event, list[dict[str, Any]]]] = {}
        self._next = 0
        self._connect_lock = trio.Lock()
        self._send_lock = trio.Lock()
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            if self._stream is not None:
                await trio.aclose_forcefully(self._stream)

    def _missing(self) -> NotRunning:
        return NotRunning(
            f"The {self._who} does not run (no answer at {self._path}).", hint="Start it with 'tonfs up'."
        )

    async def _connected(self) -> trio.SocketStream:
        async with self._connect_lock:
            if self._stream is None:
                if self._nursery is None:
                    raise NotRunning(f"The connection to the {self._who} is closed.")
                try:
                    with wire.short_path(self._path) as name:
                        self._stream = await trio.open_unix_socket(name)
                except OSError:
                    raise self._missing() from None
                self._nursery.start_soon(self._read, self._stream)
            return self._stream

    async def _read(self, stream: trio.SocketStream) -> None:
        try:
            while True:
                header = await receive_exactly(stream, wire.HEADER.size)
                if header is None:
                    break
                body = await receive_exactly(stream, wire.length(header))
                if body is None:
                    break
                reply = wire.decode(body)
                waiter = self._waiting.pop(int(reply.get("id", -1)), None)
                if waiter is not None:
                    waiter[1].append(reply)
                    waiter[0].set()
        except BadPacket:
            pass  # the connection is dropped below and every waiter told
        finally:
            if self._stream is stream:
                self._stream = None
            for event, _ in self._waiting.values():
                event.set()
            self._waiting.clear()
            await trio.aclose_forcefully(stream)

    async def call(self, method: str, params: dict[str, Any] | None = None, *, timeout: float = 30.0) -> dict[str, Any]:
        """Result of one call. Raises NotRunning, TimedOut, or the error the other side named."""
        with trio.move_on_after(timeout):
            stream = await self._connected()
            self._next += 1
            number = self._next
            event, box = trio.Event(), list[dict[str, Any]]()
            self._waiting[number] = (event, box)
            try:
                async with self._send_lock:
                    await stream.send_all(wire.encode({"id": number, "method": method, "params": params or {}}))
                await event.wait()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise self._missing() from None
            finally:
                self._waiting.pop(number, None)
            if not box:
                raise self._missing()
            return _unwrap(box[0])
        raise TimedOut(f"The {self._who} did not answer {method!r} within {timeout:g} s.")


def call_sync(
    path: Path, method: str, params: dict[str, Any] | None = None, *, who: str, timeout: float = 30.0
) -> dict[str, Any]:
    """One blocking call over a connection of its own. Raises as `ControlClient.call`."""
    end = time.monotonic() + timeout
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        try:
            with wire.short_path(path) as name:
                sock.connect(name)
        except PermissionError as exc:
            raise denied(PermissionError(exc.errno, exc.strerror, str(path))) from None
        except OSError:
            raise NotRunning(
                f"The {who} does not run (no answer at {path}).", hint="Start it with 'tonfs up'."
            ) from None
        sock.sendall(wire.encode({"id": 1, "method": method, "params": params or {}}))

        def exactly(count: int) -> bytes:
            out = bytearray()
            while len(out) < count:
                sock.settimeout(max(0.001, end - time.monotonic()))
                chunk = sock.recv(min(count - len(out), 1 << 16))
                if not chunk:
                    raise NotRunning(f"The {who} closed the connection.")
                out += chunk
            return bytes(out)

        return _unwrap(wire.decode(exactly(wire.length(exactly(wire.HEADER.size)))))
    except TimeoutError:
        raise TimedOut(f"The {who} did not answer {method!r} within {timeout:g} s.") from None
    except (ConnectionError, BrokenPipeError):
        raise NotRunning(f"The {who} closed the connection.") from None
    finally:
        sock.close()
