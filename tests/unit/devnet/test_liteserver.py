"""The lite server under trio: order of answers, waiting, errors, clients that misbehave."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.fakes.lite import SCHEMAS, Client, FakeChain, block_id, encode
from tonfs.devnet.liteserver import Limits, LiteServer
from tonfs.network.keys import KeyPair

KEY = KeyPair.from_seed(b"\x05" * 32)


class Net:
    """A lite server whose clients come over memory streams, so that the autojump clock rules."""

    def __init__(self, nursery: trio.Nursery, **limits: Any) -> None:
        self.chain = FakeChain()
        self.externals = 0
        self.nursery = nursery
        self.server = LiteServer(self.chain, KEY, on_external=self._count, limits=Limits(**limits))  # type: ignore[arg-type]

    def _count(self) -> None:
        self.externals += 1

    def tick(self) -> None:
        self.chain.seqno += 1
        self.server.block_made()

    async def raw(self) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self.server.serve_stream, theirs)
        return ours

    async def client(self) -> Client:
        client = Client(await self.raw(), KEY.public_key)
        await client.connect()
        return client


@asynccontextmanager
async def net(**limits: Any) -> AsyncIterator[Net]:
    async with trio.open_nursery() as nursery:
        yield Net(nursery, **limits)
        nursery.cancel_scope.cancel()


async def test_masterchain_info_names_the_last_block_and_the_zero_state(autojump_clock: trio.testing.MockClock) -> None:
    async with net() as n:
        value = await (await n.client()).query("getMasterchainInfo")
        assert value["last"]["seqno"] == 5
        assert value["last"]["root_hash"] == block_id(5).root_hash.hex()
        assert value["init"] == {
            "workchain": -1,
            "root_hash": block_id(0).root_hash.hex(),
            "file_hash": block_id(0).file_hash.hex(),
        }


async def test_a_waiting_query_holds_up_no_other(autojump_clock: trio.testing.MockClock) -> None:
    async with net() as n:
        client = await n.client()
        waiting = await client.ask(encode("getMasterchainInfo", wait=(7, 10_000)))
        assert (await client.query("getTime"))["now"] == 1_700_000_005
        n.tick()
        assert (await client.query("getTime"))["now"] == 1_700_000_006
        n.tick()
        answered, value = await client.answered()
        assert answered == waiting
        assert value["last"]["seqno"] == 7


async def test_a_wait_for_a_known_block_ends_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with net() as n:
        client = await n.client()
        start = trio.current_time()
        await client.query("getTime", wait=(5, 10_000))
        assert trio.current_time() == start


async def test_a_wait_ends_with_652_and_rather_late_than_early(autojump_clock: trio.testing.MockClock) -> None:
    async with net() as n:
        client = await n.client()
        start = trio.current_time()
        assert await client.query("getTime", wait=(9, 2_000)) == {"code": 652, "message": "timeout"}
        assert 2.0 < trio.current_time() - start < 3.0


async def test_errors_have_their_numbers(autojump_clock: trio.testing.MockClock) -> None:
    async with net() as n:
        client = await n.client()
        block = {"workchain": -1, "shard": -(1 << 63), "seqno": 99, "root_hash": "00" * 32, "file_hash": "00" * 32}
        assert (await client.query("getBlock", {"id": block}))["code"] == 651
        refused = await client.query("sendMessage", {"body": b"refuse me"})
        assert refused["code"] == 0
        assert refused["message"].startswith("cannot apply external message to current state")
        await client.ask(b"\xde\xad\xbe\xef")
        assert (await client.answered())[1]["code"] == -400
        assert n.externals == 0
        assert await client.query("sendMessage", {"body": b"take me"}) == {"status": 1}
        assert (n.externals, n.chain.externals) == (1, [b"take me"])


@pytest.mark.allow_logs
async def test_a_fault_in_the_chain_is_an_error_for_one_query_only(autojump_clock: trio.testing.MockClock) -> None:
    async with net() as n:
        client = await n.client()
        n.chain.now = lambda: 1 // 0  # type: ignore[method-assign]
        assert (await client.query("getTime"))["code"] == -500
        assert (await client.query("getMasterchainInfo"))["last"]["seqno"] == 5


async def test_empty_history_is_answered_after_a_pause(autojump_clock: trio.testing.MockClock) -> None:
    async with net() as n:
        client = await n.client()
        start = trio.current_time()
        asked = {"count": 5, "account": {"workchain": 0, "id": "00" * 32}, "lt": 0, "hash": "00" * 32}
        assert (await client.query("getTransactions", asked))["ids"] == []
        assert trio.current_time() - start == pytest.approx(0.1)


async def test_go_clients_are_authenticated_and_pings_answered(autojump_clock: trio.testing.MockClock) -> None:
    async with net() as n:
        client = await n.client()
        await client.send(bytes.fromhex("12ab5b44") + b"\x20" + bytes(32) + bytes(3))
        nonce = await client.receive()
        assert nonce[:4] == bytes.fromhex("b64a5de3")
        assert nonce[4] == 32
        complete = SCHEMAS.get_by_name("tcp.authentificationComplete")
        key = SCHEMAS.get_by_name("pub.ed25519")
        await client.send(
            SCHEMAS.serialize(complete, {"key": SCHEMAS.serialize(key, {"key": "11" * 32}), "signature": bytes(64)})
        )
        await client.send(bytes.fromhex("9a2b084d") + bytes(range(8)))
        assert await client.receive() == bytes.fromhex("03fb69dc") + bytes(range(8))


async def test_a_client_that_says_nothing_is_dropped(autojump_clock: trio.testing.MockClock) -> None:
    async with net(hello=10.0, idle=60.0) as n:
        silent = await n.raw()
        assert await silent.receive_some(1) == b""
        assert trio.current_time() == pytest.approx(10.0, abs=0.1)
        client = await n.client()
        with pytest.raises(trio.EndOfChannel):
            await client.receive()
        assert trio.current_time() == pytest.approx(70.0, abs=0.1)
        assert n.server.connections == 0


async def test_a_client_that_sends_nonsense_is_dropped_and_the_others_are_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with net(frame=1000) as n:
        good = await n.client()
        for payload in (b"\xde\xad\xbe\xef", b"\x01", bytes(2000)):
            bad = await n.client()
            await bad.send(payload)
            with pytest.raises(trio.EndOfChannel):
                await bad.receive()
        garbage = await n.raw()
        await garbage.send_all(bytes(300))
        assert await garbage.receive_some(1) == b""
        assert (await good.query("getTime"))["now"] == 1_700_000_005


async def test_a_client_that_does_not_read_is_dropped(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        chain = FakeChain()
        server = LiteServer(chain, KEY, limits=Limits(send=5.0))  # type: ignore[arg-type]
        ours, theirs = trio.testing.lockstep_stream_pair()
        done = trio.Event()

        async def serve() -> None:
            await server.serve_stream(theirs)
            done.set()

        nursery.start_soon(serve)
        client = Client(ours, KEY.public_key)
        await client.connect()
        await client.ask(encode("getTime"))
        await done.wait()
        assert trio.current_time() >= 5.0
        nursery.cancel_scope.cancel()


async def test_unanswered_queries_of_one_connection_are_bounded(autojump_clock: trio.testing.MockClock) -> None:
    async with net(queries=3) as n:
        client = await n.client()
        for _ in range(5):
            await client.ask(encode("getTime", wait=(6, 60_000)))
        await client.ask(encode("getVersion"))
        await trio.testing.wait_all_tasks_blocked()
        other = await n.client()
        assert (await other.query("getTime"))["now"] == 1_700_000_005
        n.tick()
        values = [(await client.answered())[1] for _ in range(6)]
        assert sum("capabilities" in v for v in values) == 1


async def test_setting_the_chain_back_drops_the_connections(autojump_clock: trio.testing.MockClock) -> None:
    async with net() as n:
        client = await n.client()
        n.server.drop_connections()
        with pytest.raises(trio.EndOfChannel):
            await client.receive()
        assert (await (await n.client()).query("getTime"))["now"] == 1_700_000_005


async def test_over_tcp_with_a_bounded_number_of_connections() -> None:
    async with AsyncExitStack() as opened, trio.open_nursery() as nursery:
        server = LiteServer(FakeChain(), KEY, limits=Limits(connections=2))  # type: ignore[arg-type]
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        await nursery.start(server.serve, listener)

        async def connect() -> Client:
            stream = await opened.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))
            return Client(stream, KEY.public_key)

        with trio.fail_after(10):
            first, second, third = [await connect() for _ in range(3)]
            await first.connect()
            await second.connect()
            assert await third.stream.receive_some(1) == b""
            await first.stream.aclose()
            await second.query("getTime")
            again = await connect()
            await again.connect()
            assert (await again.query("getTime"))["now"] == 1_700_000_005
        nursery.cancel_scope.cancel()
