"""What a daemon that seeds for us may answer: over HTTP, and over storage-daemon's control port."""

from __future__ import annotations

import http.client
import io
from collections.abc import Iterator
from hashlib import sha256

from tonfs.network import storage_daemon as cpp
from tonfs.network import tl
from tonfs.network.adnl_tcp import HELLO_SIZE, FrameCodec, accept_hello
from tonfs.network.keys import KeyPair
from tonfs.network.tonutils_daemon import TonutilsDaemon, bag_id_of, bag_ids, parse_answer

SERVER, CLIENT = KeyPair.from_seed(b"\1" * 32), KeyPair.from_seed(b"\2" * 32)
STATUSES = (200, 404, 500, 401)


class _Canned(http.client.HTTPConnection):
    """A connection whose server says `data`, whatever it is asked."""

    def __init__(self, data: bytes) -> None:
        super().__init__("localhost")
        self._data = data

    def connect(self) -> None:
        self.sock = self

    def sendall(self, data: object) -> None:
        pass

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)

    def close(self) -> None:
        pass


class _Scripted(TonutilsDaemon):
    def __init__(self, data: bytes) -> None:
        super().__init__("http://localhost:1")
        self._data = data

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        return _Canned(self._data)


def http_answer(data: bytes) -> None:
    """A whole HTTP response."""
    parse_answer("list", *_Scripted(data)._ask("list", None, 1.0))


def json_answer(data: bytes) -> None:
    """The first byte chooses the status, the rest is the body."""
    answer = parse_answer("create", STATUSES[data[0] % len(STATUSES)] if data else 200, data[1:])
    bag_ids(answer)
    bag_id_of(answer)


def cut(data: bytes) -> Iterator[bytes]:
    """Pieces of `data` that are each announced by two bytes."""
    at = 0
    while at + 2 <= len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "little")
        yield data[at + 2 : end]
        at = end


def joined(*pieces: bytes) -> bytes:
    return b"".join(len(piece).to_bytes(2, "little") + piece for piece in pieces)


class _Server:
    """The other end of a `Talk`: frames of what the input holds; an answer gets the id of the query."""

    def __init__(self, data: bytes) -> None:
        self._payloads = cut(data)
        self._codec: FrameCodec | None = None
        self._asked: list[bytes] = []

    async def send_all(self, data: bytes) -> None:
        if self._codec is None:
            assert len(data) == HELLO_SIZE
            self._codec = accept_hello(data, lambda short: SERVER)
        else:
            self._asked += self._codec.feed(data)

    async def receive_some(self, limit: int) -> bytes:
        payload = next(self._payloads, None)
        if payload is None or self._codec is None:
            return b""
        if self._asked and tl.constructor_id(payload) == tl.ADNL_ANSWER:
            payload = payload[:4] + self._asked[-1][4:36] + payload[36:]
        return self._codec.frame(payload)


def control_port(data: bytes) -> None:
    """A whole connection, as the server's payloads."""
    talk = cpp.Talk(_Server(data), SERVER.public_key).run(CLIENT, b"question")  # type: ignore[arg-type]
    try:
        talk.send(None)  # nothing in it waits
    except StopIteration as done:
        cpp.parse_torrent(cpp.no_error(done.value))


def tcp_frames(data: bytes) -> None:
    """Frames as they come out of the cipher: the codec on both ends takes the same key."""
    keys = {"send_key": bytes(32), "send_iv": bytes(16), "receive_key": bytes(32), "receive_iv": bytes(16)}
    cipher = FrameCodec(**keys)._send
    codec = FrameCodec(**keys, max_frame=cpp.MAX_FRAME)
    for at in range(0, len(data), 100):
        codec.feed(cipher.update(data[at : at + 100]))


def frame(payload: bytes) -> bytes:
    """A frame before it is encrypted."""
    body = bytes(32) + payload
    return (len(body) + 32).to_bytes(4, "little") + body + sha256(body).digest()


def torrent(flags: int) -> bytes:
    """`storage.daemon.torrentFull` with or without its optional fields, and no files."""
    writer = tl.Writer(cpp.TORRENT_FULL).int256(bytes(32)).u32(flags)
    if flags & 1:
        writer.u64(1000).bytes_(b"text")
    if flags & 2:
        writer.u64(1).u64(1000).bytes_(b"dir/")
    return writer.u64(1000).u32(1).bytes_(b"/root").bool_(True).bool_(True).bool_(False).raw(bytes(16)).u32(0).done()


def conversation(answer: bytes) -> bytes:
    """What a server says that gives this answer."""
    nonce = tl.Writer(cpp.AUTHENTICATION_NONCE).bytes_(bytes(256)).done()
    return joined(b"", nonce, b"12345678", tl.Writer(tl.ADNL_ANSWER).int256(bytes(32)).bytes_(answer).done())
