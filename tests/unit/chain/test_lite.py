"""LiteChain against the devnet's lite server on loopback, and against ones that lie, hang, close or talk nonsense."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tonfs.chain.api import AccountStatus
from tonfs.chain.lite import LiteChain, open_chain
from tonfs.chain.lite_server import read_config
from tonfs.chain.messages import Message
from tonfs.chain.wallet import Wallet
from tonfs.clock import ManualClock
from tonfs.devnet import lite_tl as their_tl
from tonfs.devnet.ledger import Ledger
from tonfs.devnet.liteserver import LiteServer
from tonfs.errors import BadProof, ChainUnavailable, ExternalRefused, GetMethodFailed, UsageError
from tonfs.ids import NANO, Address, NanoTon
from tonfs.network.keys import KeyPair

WALLET = Wallet.from_seed(b"w" * 32, "v4r2")
BOB = Address("0:" + "b0" * 32)
KEY = KeyPair.from_seed(b"s" * 32)

Answer = Callable[[LiteServer, bytes], Awaitable[bytes]]


class Twisted(LiteServer):
    """A lite server whose answers go through a function first."""

    def __init__(self, ledger: Ledger, twist: Answer | None = None) -> None:
        super().__init__(ledger, KEY)
        self.twist = twist
        self.asked = 0

    async def answer(self, data: bytes) -> bytes:
        self.asked += 1
        return await (self.twist(self, data) if self.twist is not None else super().answer(data))

    async def honest(self, data: bytes) -> bytes:
        return await LiteServer.answer(self, data)


class World:
    """One chain and its lite servers; blocks come when `tick` is called."""

    def __init__(self, ledger: Ledger, nursery: trio.Nursery) -> None:
        self.ledger = ledger
        self.servers: list[LiteServer] = []
        self.ports: list[int] = []
        self._nursery = nursery

    async def serve(self, server: LiteServer) -> Twisted:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.ports.append(listener.socket.getsockname()[1])
        await self._nursery.start(server.serve, listener)
        self.servers.append(server)
        assert isinstance(server, Twisted)
        return server

    def tick(self) -> None:
        self.ledger.tick()
        for server in self.servers:
            server.block_made()

    @property
    def config(self) -> dict[str, Any]:
        key = {"@type": "pub.ed25519", "key": base64.b64encode(KEY.public_key).decode()}
        return {"liteservers": [{"ip": 2130706433, "port": port, "id": key} for port in self.ports]}


@asynccontextmanager
async def make_world(path: Path) -> AsyncIterator[World]:
    ledger = Ledger.open(path / "chain.db", ManualClock(), b"test")
    ledger.faucet(WALLET.address, NanoTon(10 * NANO))
    ledger.tick()
    async with trio.open_nursery() as nursery:
        yield World(ledger, nursery)
        nursery.cancel_scope.cancel()
    ledger.close()


@asynccontextmanager
async def impatient(world: World) -> AsyncIterator[LiteChain]:
    async with open_chain(world.config) as chain:
        chain._timeout = 0.2
        chain._patience = 0.6
        yield chain


async def test_the_whole_seam_works_over_tcp(tmp_path: Path) -> None:
    async with make_world(tmp_path) as world:
        await world.serve(Twisted(world.ledger))
        async with open_chain(world.config) as chain:
            assert await chain.now() == world.ledger.last.gen_utime
            state = await chain.account(WALLET.address)
            assert (state.balance, state.status, state.seqno) == (10 * NANO, AccountStatus.UNINIT, 2)
            assert (await chain.account(BOB)).status is AccountStatus.NONE
            assert await chain.transactions(BOB) == []
            signed = WALLET.sign(0, state.now + 60, [Message(BOB, NanoTon(NANO), bounce=False)])
            await chain.send_boc(signed.boc)
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def _tick() -> None:
                    await trio.sleep(0.05)
                    world.tick()

                assert await chain.wait_block() == 3
            newest, first = await chain.transactions(WALLET.address)
            assert newest.in_message is not None
            assert newest.in_message.hash == signed.hash
            assert newest.succeeded
            assert (await chain.transactions(WALLET.address, before=(newest.prev_lt, newest.prev_hash)))[0] == first
            assert (await chain.transactions(BOB))[0].in_message == newest.out_messages[0]
            assert await chain.get_method(WALLET.address, "seqno") == [1]
            with pytest.raises(GetMethodFailed) as caught:
                await chain.get_method(WALLET.address, "no_such_method")
            assert caught.value.vm_exit_code == 11
            with pytest.raises(ExternalRefused, match="33"):
                await chain.send_boc(signed.boc)


async def test_histories_longer_than_a_page_are_read_in_order(tmp_path: Path) -> None:
    async with make_world(tmp_path) as world:
        await world.serve(Twisted(world.ledger))
        for n in range(40):
            world.ledger.faucet(BOB, NanoTon(n + 1))
        world.tick()
        async with open_chain(world.config) as chain:
            found = await chain.transactions(BOB, limit=100)
            assert [t.in_message.value for t in found if t.in_message] == list(range(40, 0, -1))
            assert len(await chain.transactions(BOB, limit=20)) == 20


async def lie_about_the_state(server: LiteServer, data: bytes) -> bytes:
    assert isinstance(server, Twisted)
    answer = await server.honest(data)
    at = answer.find(b"\xb5\xee\x9c\x72", len(answer) // 2)
    return answer[:-9] + bytes([answer[-9] ^ 1]) + answer[-8:] if at > 0 else answer


async def talk_nonsense(_server: LiteServer, _data: bytes) -> bytes:
    return b"nonsense" * 10


async def hang(_server: LiteServer, _data: bytes) -> bytes:
    await trio.sleep_forever()
    raise AssertionError


async def fail(_server: LiteServer, _data: bytes) -> bytes:
    return their_tl.error(-400, "something is wrong")


async def close(server: LiteServer, _data: bytes) -> bytes:
    server.drop_connections()
    return b""


def go_back(block: int) -> Answer:
    """Masterchain info of an old block, everything else honest."""

    async def twist(server: LiteServer, data: bytes) -> bytes:
        assert isinstance(server, Twisted)
        answer = await server.honest(data)
        if answer[:4] == (0x85832881).to_bytes(4, "little"):
            old = server._chain.block(block).master
            return answer[:4] + old.to_bytes() + answer[84:]
        return answer

    return twist


@pytest.mark.allow_logs
@pytest.mark.parametrize("twist", [lie_about_the_state, talk_nonsense])
async def test_a_lying_server_is_found_out_and_avoided(tmp_path: Path, twist: Answer) -> None:
    async with make_world(tmp_path) as world:
        liar = await world.serve(Twisted(world.ledger, twist))
        async with impatient(world) as chain:
            with pytest.raises(BadProof):
                await chain.account(WALLET.address)
            asked = liar.asked
            with pytest.raises(BadProof, match="avoided"):
                await chain.account(WALLET.address)
            assert liar.asked == asked


@pytest.mark.allow_logs
@pytest.mark.parametrize("twist", [lie_about_the_state, talk_nonsense, hang, fail, close])
async def test_another_server_takes_over_from_a_bad_one(tmp_path: Path, twist: Answer) -> None:
    async with make_world(tmp_path) as world:
        bad = await world.serve(Twisted(world.ledger, twist))
        good = await world.serve(Twisted(world.ledger))
        async with impatient(world) as chain:
            assert (await chain.account(WALLET.address)).balance == 10 * NANO
            assert bad.asked > 0
            assert good.asked > 0


@pytest.mark.parametrize("twist", [hang, fail, close])
async def test_a_server_that_does_not_answer_makes_the_chain_unavailable_in_time(tmp_path: Path, twist: Answer) -> None:
    async with make_world(tmp_path) as world:
        await world.serve(Twisted(world.ledger, twist))
        async with impatient(world) as chain:
            with pytest.raises(ChainUnavailable):
                await chain.now()
            with pytest.raises(ChainUnavailable):
                await chain.account(WALLET.address)


@pytest.mark.allow_logs
async def test_a_server_that_goes_back_in_time_is_avoided(tmp_path: Path) -> None:
    async with make_world(tmp_path) as world:
        server = await world.serve(Twisted(world.ledger))
        world.tick()
        async with impatient(world) as chain:
            assert (await chain.account(WALLET.address)).seqno == 3
            server.twist = go_back(2)
            with pytest.raises(BadProof):
                await chain.account(WALLET.address)


@pytest.mark.allow_logs
async def test_two_servers_with_different_blocks_of_the_same_number_are_not_both_believed(tmp_path: Path) -> None:
    (tmp_path / "fork").mkdir()
    async with make_world(tmp_path) as world, make_world(tmp_path / "fork") as other:
        first = await world.serve(Twisted(world.ledger))
        other.ledger.faucet(BOB, NanoTon(1))
        world.tick()
        other.tick()
        await other.serve(Twisted(other.ledger))
        world.ports += other.ports
        async with impatient(world) as chain:
            before = await chain.account(WALLET.address)
            first.twist = fail
            with pytest.raises((ChainUnavailable, BadProof)):
                await chain.account(BOB)
            first.twist = None
            chain._servers[0].avoid_until = 0.0
            assert (await chain.account(WALLET.address)).last_hash == before.last_hash


async def test_a_server_that_comes_back_is_used_again(tmp_path: Path) -> None:
    async with make_world(tmp_path) as world:
        server = await world.serve(Twisted(world.ledger, close))
        async with impatient(world) as chain:
            chain._patience = 10.0
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def _recover() -> None:
                    await trio.sleep(0.6)
                    server.twist = None

                assert (await chain.account(WALLET.address)).balance == 10 * NANO


async def test_a_chain_that_was_set_back_is_followed_again_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tonfs.devnet.liteserver.LATE", 0.0)
    monkeypatch.setattr("tonfs.chain.lite.FIRST_PAUSE", 0.05)
    async with make_world(tmp_path) as world:
        server = await world.serve(Twisted(world.ledger))
        world.ledger.snapshot("early")
        for _ in range(3):
            world.tick()
        async with impatient(world) as chain:
            chain._timeout = 1.05  # the server's wait is a second shorter
            chain._patience = 10.0
            assert (await chain.account(WALLET.address)).seqno == 5
            world.ledger.restore("early")
            server.drop_connections()
            assert (await chain.account(WALLET.address)).seqno == 2


async def test_nobody_listening_is_unavailable(tmp_path: Path) -> None:
    async with make_world(tmp_path) as world:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        world.ports.append(listener.socket.getsockname()[1])
        await listener.aclose()
        async with impatient(world) as chain:
            with pytest.raises(ChainUnavailable):
                await chain.now()


async def test_a_server_that_accepts_and_says_nothing_is_unavailable(tmp_path: Path) -> None:
    async def mute(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with make_world(tmp_path) as world:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        world.ports.append(listener.socket.getsockname()[1])
        world._nursery.start_soon(trio.serve_listeners, mute, [listener])
        async with impatient(world) as chain:
            with pytest.raises(ChainUnavailable):
                await chain.now()


async def test_a_server_with_another_key_is_unavailable(tmp_path: Path) -> None:
    async with make_world(tmp_path) as world:
        await world.serve(Twisted(world.ledger))
        config = world.config
        config["liteservers"][0]["id"]["key"] = base64.b64encode(KeyPair.from_seed(b"o" * 32).public_key).decode()
        async with open_chain(config) as chain:
            chain._timeout, chain._patience = 0.2, 0.4
            with pytest.raises(ChainUnavailable):
                await chain.now()


async def test_cancelling_a_call_leaves_the_chain_usable(tmp_path: Path) -> None:
    async with make_world(tmp_path) as world:
        await world.serve(Twisted(world.ledger))
        async with open_chain(world.config) as chain:
            await chain.now()
            with trio.move_on_after(0.1) as scope:
                await chain.wait_block()
            assert scope.cancelled_caught
            assert (await chain.account(WALLET.address)).balance == 10 * NANO


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"liteservers": []},
        {"liteservers": [{"ip": 1, "port": 1, "id": {"key": "AA=="}}]},
        {"liteservers": [{"ip": 1, "port": 70000, "id": {"key": base64.b64encode(bytes(32)).decode()}}]},
        {"liteservers": 5},
        [],
    ],
)
def test_a_useless_global_config_is_a_usage_error(tmp_path: Path, config: object) -> None:
    path = tmp_path / "global.config.json"
    import json

    path.write_text(json.dumps(config))
    with pytest.raises(UsageError):
        read_config(path)


def test_a_missing_or_broken_config_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_config(tmp_path / "none")
    (tmp_path / "broken").write_text("{")
    with pytest.raises(UsageError, match="not JSON"):
        read_config(str(tmp_path / "broken"))


def test_negative_addresses_are_signed_integers() -> None:
    entry = {"ip": -1062731519, "port": 1, "id": {"key": base64.b64encode(bytes(32)).decode()}}
    assert read_config({"liteservers": [entry]})[0].host == "192.168.1.1"
