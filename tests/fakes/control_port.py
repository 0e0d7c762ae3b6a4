"""storage-daemon's control port as far as `StorageDaemon` uses it, over bags that a storage node of ours serves.

Made from the public description (reference protocol 8.3): hello, authentication by a known key, queries. It makes bags
as the daemon does: pieces of 128 KiB, full names sorted as bytes, a known bag twice is an error.
"""

from __future__ import annotations

import os
from pathlib import Path

import trio

from tonfs.bagfiles import StoredBag, create_bag
from tonfs.errors import BadPacket, TonfsError
from tonfs.ids import BagId
from tonfs.network import storage_daemon as wire
from tonfs.network import tl
from tonfs.network.adnl_tcp import HELLO_SIZE, FrameCodec, accept_hello
from tonfs.network.keys import KeyPair, read_public, verify
from tonfs.network.storage_daemon import StorageDaemon
from tonfs.network.storage_node import StorageNode


class ControlPort:
    def __init__(self, folder: Path, node: StorageNode) -> None:
        self.server_key, self.client_key = KeyPair.generate(), KeyPair.generate()
        self.bags: dict[BagId, Path] = {}
        self.calls: list[int] = []
        self.port = 0
        self._folder, self._node = folder, node

    def client(self) -> StorageDaemon:
        return StorageDaemon(("127.0.0.1", self.port), self.server_key.public_key, self.client_key)

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._connection, [listener])

    async def _connection(self, stream: trio.SocketStream) -> None:
        try:
            hello = b""
            while len(hello) < HELLO_SIZE:
                hello += await stream.receive_some(HELLO_SIZE - len(hello))
            codec = accept_hello(hello, lambda short: self.server_key if short == self.server_key.short_id else None)
            await stream.send_all(codec.frame(b""))
            await self._talk(stream, codec)
        except (BadPacket, trio.BrokenResourceError, trio.ClosedResourceError):
            await stream.aclose()

    async def _talk(self, stream: trio.SocketStream, codec: FrameCodec) -> None:
        nonce, ours, known = b"", os.urandom(256), False
        while data := await stream.receive_some(1 << 16):
            for payload in codec.feed(bytes(data)):
                reader = tl.Reader(payload)
                tag = reader.u32()
                if tag == wire.AUTHENTICATE:
                    nonce = reader.bytes_()
                    await stream.send_all(codec.frame(tl.Writer(wire.AUTHENTICATION_NONCE).bytes_(ours).done()))
                elif tag == wire.AUTHENTICATION_COMPLETE:
                    key = read_public(reader)
                    known = key == self.client_key.public_key and verify(key, nonce + ours, reader.bytes_())
                elif tag == tl.ADNL_QUERY:
                    if not known:
                        raise BadPacket("a stranger")
                    query_id = reader.int256()
                    answer = await self._answer(tl.Reader(reader.bytes_()))
                    await stream.send_all(codec.frame(tl.Writer(tl.ADNL_ANSWER).int256(query_id).bytes_(answer).done()))

    async def _answer(self, query: tl.Reader) -> bytes:
        tag = query.u32()
        self.calls.append(tag)
        if tag == wire.CREATE:
            return await self._create(Path(os.fsdecode(query.bytes_())), query.bytes_())
        bag = BagId(query.int256())
        if bag not in self.bags:
            return self._error("No such torrent")
        if tag == wire.GET_FULL:
            return self._full(bag)
        del self.bags[bag]
        await self._node.forget(bag)
        return tl.Writer(wire.SUCCESS).done()

    async def _create(self, path: Path, description: bytes) -> bytes:
        try:
            created = create_bag(path, description=description, piece_size=wire.PIECE, order="sorted", raw=True)
        except TonfsError as exc:
            return self._error(exc.message)
        bag = created.info.bag_id
        if bag in self.bags:
            return self._error("Cannot add torrent: duplicate hash")
        directory = self.bags[bag] = self._folder / bag.hex()
        StoredBag.keep(directory, created)
        await self._node.seed(bag, directory)
        return self._full(bag)

    def _full(self, bag: BagId) -> bytes:
        """`storage.daemon.torrentFull` with all fields, and no files."""
        writer = tl.Writer(wire.TORRENT_FULL).int256(bag).u32(3).u64(1000).bytes_(b"text")
        writer.u64(1).u64(1000).bytes_(b"dir/").u64(1000).u32(1).bytes_(b"/root")
        return writer.bool_(True).bool_(True).bool_(True).raw(bytes(16)).u32(0).done()

    @staticmethod
    def _error(text: str) -> bytes:
        return tl.Writer(wire.QUERY_ERROR).bytes_(text.encode()).done()
