"""A running C++ storage-daemon as the one who seeds, by its control port (reference protocol 8.2, 8.3).

The daemon makes the bag anew from the files where they lie. It always takes pieces of 128 KiB and sorts full names as
bytes, so only such bags come out the same; others are refused (`Refused`), and our own peer seeds (`BackedNet`).
Each call has a connection of its own: ADNL over TCP, then the proof that we hold the daemon's client key.

Written from the public sources; tested against a fake of the same protocol, not against the daemon.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from ..bag import SAFE_DESCRIPTION
from ..bagfiles import StoredBag
from ..errors import BadPacket, NotFound, NotRunning, Refused, TonfsError, UsageError
from ..ids import BagId
from . import tl
from .adnl_tcp import make_hello
from .api import UdpAddress
from .given_bags import GivenBags
from .keys import KeyPair

CALL_TIMEOUT: Final = 30.0
CREATE_TIMEOUT: Final = 1800.0
"""The daemon answers `createTorrent` when everything is hashed."""
PIECE: Final = 1 << 17
MAX_FRAME: Final = 1 << 24

AUTHENTICATE: Final = 0x445BAB12
AUTHENTICATION_NONCE: Final = 0xE35D4AB6
AUTHENTICATION_COMPLETE: Final = 0xF7AD9EA6
PRIVATE_ED25519: Final = 0x49682317
CREATE: Final = 0x9D99BC2B
GET_FULL: Final = 0x5C9A4066
REMOVE: Final = 0x0A7A545B
TORRENT_FULL: Final = 0x5FA88C27
SUCCESS: Final = 0xB3AEEF1C
QUERY_ERROR: Final = 0x04BDBAC4


@dataclass(frozen=True)
class Torrent:
    """What is read of `storage.daemon.torrentFull`."""

    bag_id: BagId
    active_upload: bool
    completed: bool


def parse_torrent(data: bytes) -> Torrent:
    """The leading part of a boxed `storage.daemon.torrentFull`. Raises BadPacket."""
    reader = tl.Reader(data)
    reader.expect(TORRENT_FULL)
    bag, flags = BagId(reader.int256()), reader.u32()
    if flags & 1:
        reader.u64()
        reader.bytes_()
    if flags & 2:
        reader.raw(16)
        reader.bytes_()
    reader.raw(12)
    reader.bytes_()
    reader.bool_()
    return Torrent(bag, active_upload=reader.bool_(), completed=reader.bool_())


def no_error(answer: bytes) -> bytes:
    """An answer that is not the daemon's complaint. Raises Refused with its words, BadPacket."""
    if tl.constructor_id(answer) == QUERY_ERROR:
        raise Refused(f"storage-daemon says: {tl.readable(tl.Reader(answer, 4).bytes_())}")
    return answer


class StorageDaemon:
    """`Seeder` (see network/api.py). Raises besides: NotRunning, Refused, BadPacket."""

    def __init__(
        self, address: UdpAddress, server_key: bytes, client_key: KeyPair, given: GivenBags | None = None
    ) -> None:
        self._address = address
        self._server_key = server_key
        self._client_key = client_key
        self._ours = GivenBags() if given is None else given

    async def seed(self, bag_id: BagId, directory: Path) -> None:
        """See Seeder. Raises Refused when the daemon cannot make this very bag."""
        path, description = await trio.to_thread.run_sync(_plan, bag_id, directory)
        known = await self._find(bag_id)
        if known is None or not (known.active_upload and known.completed):
            request = tl.Writer(CREATE).bytes_(os.fsencode(path)).bytes_(description).bool_(True).bool_(False).u32(0)
            made = parse_torrent(await self._call(request.done(), CREATE_TIMEOUT)).bag_id
            if made != bag_id:  # and a new one: a bag that was there before is an error ("duplicate hash")
                await self._remove(made)
                raise Refused(f"The daemon makes another bag of {path} than {bag_id.hex()}.")
            self._ours.add(bag_id)

    async def forget(self, bag_id: BagId) -> None:
        """See Seeder."""
        if bag_id in self._ours:
            if await self._find(bag_id) is not None:
                await self._remove(bag_id)
            self._ours.discard(bag_id)

    async def _find(self, bag_id: BagId) -> Torrent | None:
        try:
            return parse_torrent(await self._call(tl.Writer(GET_FULL).int256(bag_id).u32(0).done(), CALL_TIMEOUT))
        except Refused:
            return None  # the only thing that can be wrong with this question is the bag

    async def _remove(self, bag_id: BagId) -> None:
        tl.Reader(await self._call(tl.Writer(REMOVE).int256(bag_id).bool_(False).done(), CALL_TIMEOUT)).expect(SUCCESS)

    async def _call(self, request: bytes, timeout: float) -> bytes:
        """One boxed answer. Raises Refused with the daemon's words."""
        host, port = self._address
        answer = b""
        try:
            with trio.fail_after(timeout):
                async with await trio.open_tcp_stream(host, port) as stream:
                    answer = await Talk(stream, self._server_key).run(self._client_key, request)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            raise NotRunning(
                f"storage-daemon does not answer at {host}:{port}.",
                hint="Start it with '-p PORT', or unset peer.seeder in config.toml.",
            ) from None
        return no_error(answer)


class Talk:
    """One connection."""

    def __init__(self, stream: trio.abc.Stream, server_key: bytes) -> None:
        self._stream = stream
        self._hello, self._codec = make_hello(KeyPair.generate(), server_key, max_frame=MAX_FRAME)
        self._waiting: list[bytes] = []

    async def run(self, client_key: KeyPair, request: bytes) -> bytes:
        """Hello, proof of our key, one query. Raises BadPacket, BrokenResourceError."""
        await self._stream.send_all(self._hello)
        await self._receive()  # the empty confirmation
        nonce = os.urandom(32)
        await self._send(tl.Writer(AUTHENTICATE).bytes_(nonce).done())
        reader = tl.Reader(await self._receive())
        reader.expect(AUTHENTICATION_NONCE)
        signature = client_key.sign(nonce + reader.bytes_(512))
        proof = tl.Writer(AUTHENTICATION_COMPLETE).u32(tl.PUB_ED25519).int256(client_key.public_key)
        await self._send(proof.bytes_(signature).done())
        query_id = os.urandom(32)
        await self._send(tl.Writer(tl.ADNL_QUERY).int256(query_id).bytes_(request).done())
        while True:
            answer = tl.Reader(await self._receive())
            if answer.u32() == tl.ADNL_ANSWER and answer.int256() == query_id:
                return answer.bytes_()

    async def _send(self, payload: bytes) -> None:
        await self._stream.send_all(self._codec.frame(payload))

    async def _receive(self) -> bytes:
        while not self._waiting:
            data = await self._stream.receive_some(1 << 16)
            if not data:
                raise trio.BrokenResourceError
            self._waiting += self._codec.feed(bytes(data))
        return self._waiting.pop(0)


def _plan(bag_id: BagId, directory: Path) -> tuple[Path, bytes]:
    """(what the daemon shall make the bag of, description). Raises NotFound, Refused."""
    stored = StoredBag.open(directory)
    try:
        info, header = stored.info, stored.header
        if stored.bag_id != bag_id:
            raise NotFound(f"{directory} holds bag {stored.bag_id.hex()}, not {bag_id.hex()}.")
        if info is None or header is None or not stored.complete:
            raise Refused(f"Bag {bag_id.hex()} is not complete; a daemon can only make whole ones.")
        why = ""
        if info.piece_size != PIECE:
            why = f"has pieces of {info.piece_size} bytes"
        elif list(header.names) != sorted(header.names):
            why = "has its files in another order"
        elif len(info.description) > SAFE_DESCRIPTION:
            why = "has a description that the daemon writes otherwise"
        if why:
            raise Refused(f"Bag {bag_id.hex()} {why}, which storage-daemon does not make.")
        return stored.data_root / os.fsdecode(header.top), info.description
    finally:
        stored.close()


def storage_daemon_of(address: str, keys: str, given: GivenBags | None = None) -> StorageDaemon:
    """From settings: `127.0.0.1:5555` and the daemon's `cli-keys` folder. Raises UsageError, TonfsError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"{address!r} is not the address of a control port.", hint="Write it as 127.0.0.1:5555.")
    folder = Path(keys).expanduser()
    try:
        server = tl.Reader((folder / "server.pub").read_bytes())
        client = tl.Reader((folder / "client").read_bytes())
        server.expect(tl.PUB_ED25519)
        client.expect(PRIVATE_ED25519)
        return StorageDaemon((host, int(port)), server.int256(), KeyPair.from_seed(client.int256()), given)
    except OSError as exc:
        raise TonfsError(f"The keys of storage-daemon cannot be read: {exc.strerror} ({exc.filename}).") from None
    except BadPacket:
        raise UsageError(
            f"{folder} does not hold the keys of a storage-daemon.", hint="Name its db/cli-keys."
        ) from None
