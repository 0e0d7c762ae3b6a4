"""A load generator for S3 servers that costs less than they do: signed beforehand, bare sockets, one epoll loop.

Used by `s3.py`; not a client library. Everything is bounded: a connection that is silent for `PATIENCE` seconds is an
error, and errors are counted, never retried.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import selectors
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

PATIENCE = 60.0
_LENGTH = re.compile(rb"\r\ncontent-length:[ ]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ ]*chunked", re.IGNORECASE)


@dataclass(frozen=True)
class Server:
    """Where, and with which key."""

    host: str
    port: int
    access_key: str
    secret_key: str
    region: str = "us-east-1"


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


class Signer:
    """Whole requests as bytes, by AWS Signature Version 4."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self._scope = f"{self._date[:8]}/{server.region}/s3/aws4_request"
        key = b"AWS4" + server.secret_key.encode()
        for part in self._scope.split("/"):
            key = _hmac(key, part)
        self._key = key

    def head(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        length: int | None = None,
        payload: str = hashlib.sha256(b"").hexdigest(),
    ) -> bytes:
        """Request line and headers. `payload`: SHA-256 of the body in hex, or UNSIGNED-PAYLOAD."""
        server = self._server
        pairs = sorted((quote(k, safe="-_.~"), quote(v, safe="-_.~")) for k, v in (query or {}).items())
        text = "&".join(f"{k}={v}" for k, v in pairs)
        sent = {"host": f"{server.host}:{server.port}", "x-amz-content-sha256": payload, "x-amz-date": self._date}
        sent |= dict(headers or {})
        names = sorted(sent)
        lines = "".join(f"{name}:{sent[name]}\n" for name in names)
        canonical = "\n".join((method, path, text, lines, ";".join(names), payload))
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        signature = _hmac(self._key, f"AWS4-HMAC-SHA256\n{self._date}\n{self._scope}\n{digest}").hex()
        sent["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={server.access_key}/{self._scope}, "
            f"SignedHeaders={';'.join(names)}, Signature={signature}"
        )
        if length is not None:
            sent["content-length"] = str(length)
        target = f"{path}?{text}" if text else path
        return (f"{method} {target} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in sent.items()) + "\r\n").encode()

    def whole(self, method: str, path: str, body: bytes, **words: Mapping[str, str]) -> bytes:
        """A request with its body, the body's SHA-256 signed."""
        return self.head(method, path, length=len(body), payload=hashlib.sha256(body).hexdigest(), **words) + body


@dataclass
class Tally:
    """What a run gave."""

    done: int = 0
    errors: int = 0
    received: int = 0
    seconds: float = 0.0
    first_error: bytes = b""
    bodies: list[bytes] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.done / self.seconds if self.seconds else 0.0


class _Connection:
    """One request after the other on one socket."""

    def __init__(self, server: Server, requests: Iterator[bytes], tally: Tally, *, head: bool, keep: bool) -> None:
        self._server, self._requests, self._tally = server, requests, tally
        self._head, self._keep = head, keep
        self._out = memoryview(b"")
        self._in = bytearray()
        self._want = -1
        self._seen = 0
        self._status_ok = False
        self.busy = True
        self._connect()

    def _connect(self) -> None:
        self.socket = socket.create_connection((self._server.host, self._server.port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)

    def begin(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self.busy = False
            return
        self._out = memoryview(request)
        self._in.clear()
        self._want, self._seen = -1, 0
        self.write()

    @property
    def writing(self) -> bool:
        return len(self._out) > 0

    def write(self) -> None:
        try:
            while len(self._out):
                self._out = self._out[self.socket.send(self._out[: 1 << 20]) :]
        except BlockingIOError:
            pass
        except OSError:
            self._failed(b"cut while sending")

    def read(self) -> None:
        try:
            data = self.socket.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._failed(b"cut while receiving")
            return
        if self._want >= 0:
            self._seen += len(data)
            if self._keep or not self._status_ok:
                self._in += data
        else:
            self._in += data
            self._look()
        if self._want >= 0 and self._seen >= self._want:
            self._finish()

    def _look(self) -> None:
        end = self._in.find(b"\r\n\r\n")
        if end < 0:
            return
        start = bytes(self._in[:end])
        self._status_ok = start[9:10] == b"2"
        body = len(self._in) - end - 4
        found = _LENGTH.search(start)
        if self._head:
            self._want, self._seen = 0, 0
        elif found:
            self._want, self._seen = int(found[1]), body
        elif _CHUNKED.search(start):
            if not self._in.endswith(b"0\r\n\r\n"):
                return
            self._want, self._seen = 0, body
        else:
            self._want, self._seen = 0, 0
        del self._in[: end + 4]

    def _finish(self) -> None:
        tally = self._tally
        if self._status_ok:
            tally.done += 1
            tally.received += self._seen
            if self._keep:
                tally.bodies.append(bytes(self._in))
        else:
            tally.errors += 1
            tally.first_error = tally.first_error or bytes(self._in[:500])
        self._want = -1
        self.begin()

    def _failed(self, why: bytes) -> None:
        self._tally.errors += 1
        self._tally.first_error = self._tally.first_error or why
        self._out = memoryview(b"")
        self.busy = False


def load(
    server: Server, requests: Sequence[bytes], concurrency: int, *, head: bool = False, keep: bool = False
) -> Tally:
    """Send all requests over `concurrency` connections. `head`: answers have no body; `keep`: keep the bodies."""
    tally = Tally()
    todo = iter(requests)
    selector = selectors.DefaultSelector()
    connections = [_Connection(server, todo, tally, head=head, keep=keep) for _ in range(concurrency)]
    started = time.perf_counter()
    for connection in connections:
        connection.begin()
        selector.register(connection.socket, _events(connection), connection)
    left = len(connections)
    while left:
        ready = selector.select(PATIENCE)
        if not ready:
            tally.errors += left
            tally.first_error = tally.first_error or b"silence"
            break
        for key, mask in ready:
            connection = key.data
            if mask & selectors.EVENT_WRITE:
                connection.write()
            if mask & selectors.EVENT_READ:
                connection.read()
            if not connection.busy:
                selector.unregister(connection.socket)
                left -= 1
            elif key.events != _events(connection):
                selector.modify(connection.socket, _events(connection), connection)
    tally.seconds = time.perf_counter() - started
    for connection in connections:
        connection.socket.close()
    selector.close()
    return tally


def _events(connection: _Connection) -> int:
    return selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.writing else 0)
