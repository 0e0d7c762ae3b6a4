"""What others see of a provider: the public list, answers to queries, faulty pieces, the wallet's externals."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.fakes.adnl import FakeNet
from tests.unit.provider.market import world
from tonfs.bag import verify_proof
from tonfs.chain import Message, Wallet
from tonfs.errors import ExternalRefused, PeerTimeout, UsageError
from tonfs.ids import NANO, BagId, NanoTon
from tonfs.network import provider_tl as wire
from tonfs.network.keys import short_id
from tonfs.provider.answers import Answers
from tonfs.provider.faults import SLOW_SECONDS, Fault, FaultySource, parse_fault
from tonfs.provider.register import FEE, NOTE, REGISTRY, announcement, register
from tonfs.provider.sender import Sender
from tonfs.provider.store import ProviderStore


async def test_a_provider_registers_once_even_when_its_notes_are_lost(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with world(tmp_path) as w:
        for attempt in range(3):
            store = ProviderStore(tmp_path / f"{attempt // 2}.db")  # the third start has lost its notes
            await register(w.chain, Sender(w.chain, w.wallet), store, w.key)
            assert store.note(NOTE) == "yes"
            store.close()
        await w.chain.wait_block()
        found = await w.chain.transactions(REGISTRY)
        assert len(found) == 1
        message = found[0].in_message
        assert message is not None
        assert (message.source, message.comment) == (w.wallet.address, announcement(w.key))
        assert message.value <= FEE


async def test_registration_waits_for_coins_and_for_the_chain(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(tmp_path) as w, trio.open_nursery() as nursery:
        poor = Wallet.from_seed(b"n" * 32, "v3r2")
        store = ProviderStore(tmp_path / "p.db")
        w.chain.offline = True
        nursery.start_soon(register, w.chain, Sender(w.chain, poor), store, w.key)
        await trio.sleep(60)
        w.chain.offline = False
        await trio.sleep(60)
        assert store.note(NOTE) == ""
        await w.chain.give(poor.address, NANO)
        await trio.sleep(60)
        assert store.note(NOTE) == "yes"
        store.close()


async def test_externals_go_one_after_the_other(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(tmp_path) as w:
        sender = Sender(w.chain, w.wallet)
        done: list[bool] = []

        async def pay() -> None:
            done.append(await sender.deliver([Message(w.owner.address, NanoTon(1000), bounce=False)]))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(pay)
        assert done == [True] * 3
        assert w.wallet.seqno(await sender.state()) == 3


async def test_an_external_that_never_arrives_expires_and_a_refused_one_raises(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with world(tmp_path) as w:
        sender = Sender(w.chain, w.wallet)
        w.chain.lose = 1000
        assert await sender.deliver([Message(w.owner.address, NanoTon(1000), bounce=False)]) is False
        w.chain.lose = 0
        w.chain.refuse = True
        with pytest.raises(ExternalRefused):
            await sender.deliver([Message(w.owner.address, NanoTon(1000), bounce=False)])


async def test_clients_get_rates_status_and_a_signed_adnl_id(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(tmp_path) as w, w.provider() as keeper, trio.open_nursery() as nursery:
        net = FakeNet(nursery)
        front, storage, client = net.endpoint("front"), net.endpoint("storage"), net.endpoint("client")
        front.set_handler(Answers(keeper, storage).handle)
        peer = client.peer(front.public_key, front.address)

        async def ask(request: wire.Request) -> bytes:
            return await peer.rldp_query(wire.pack_request(request), max_answer=wire.MAX_STORAGE, timeout=5)

        bag = w.bag()
        assert bag.info is not None
        rates = wire.parse_rates(await ask(wire.RatesRequest(bag.info.file_size)))
        assert (rates.available, rates.min_span, rates.max_span) == (True, 600, 30 * 86400)
        address = bytes.fromhex((await w.hire(bag))[2:])
        with pytest.raises(PeerTimeout):
            await ask(wire.AdnlProofRequest(address))
        assert wire.parse_storage(await ask(wire.StorageRequest(address, 0))).status == "resolving"
        await w.until_proof(bag, 0)
        status = wire.parse_storage(await ask(wire.StorageRequest(address, 30_000)))
        assert status.status == "active"
        verify_proof(bag.info, 30_000 // 4096, status.proof)
        assert wire.parse_adnl_proof(await ask(wire.AdnlProofRequest(address)), w.key) == short_id(storage.public_key)
        outside = wire.parse_storage(await ask(wire.StorageRequest(address, (1 << 64) - 1)))
        assert (outside.status, outside.proof) == ("error", b"")
        plain = await peer.query(wire.pack_request(wire.RatesRequest(5)), timeout=5)
        assert wire.parse_rates(plain).available
        for junk in (b"", b"\0\0\0\0", wire.pack_request(wire.RatesRequest(5)) + b"tail"):
            with pytest.raises(PeerTimeout):
                await peer.query(junk, timeout=2)
        nursery.cancel_scope.cancel()


async def test_many_questions_about_unknown_contracts_cost_few_chain_reads(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with world(tmp_path) as w, w.provider() as keeper:
        address = await w.hire(w.bag(), providers={})
        reads = 0
        account = w.chain.account

        async def counted(*args: object) -> object:
            nonlocal reads
            reads += 1
            return await account(*args)  # type: ignore[arg-type]

        w.chain.account = counted  # type: ignore[method-assign,assignment]
        for _ in range(50):
            assert (await keeper.request(address, 0)).status == "error"
        assert reads == 1


async def test_two_questions_at_once_accept_a_contract_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(tmp_path) as w, w.provider() as keeper:
        bag = w.bag()
        address = await w.hire(bag)
        answers: list[str] = []

        async def ask() -> None:
            answers.append((await keeper.request(address, 0)).status)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask)
        assert answers == ["resolving"] * 10
        assert len(keeper.kept) == 1
        await w.until_proof(bag, 0)


class _Pieces:
    async def read_piece(self, bag_id: BagId, index: int) -> tuple[bytes, bytes] | None:
        await trio.lowlevel.checkpoint()
        return (b"proof", b"data") if index == 0 else None


async def test_faulty_sources_misbehave_as_they_are_told(autojump_clock: MockClock) -> None:
    source, bag = FaultySource(_Pieces()), BagId(bytes(32))
    assert await source.read_piece(bag, 0) == (b"proof", b"data")
    source.fault = Fault.WRONG_BYTES
    found = await source.read_piece(bag, 0)
    assert found is not None
    assert found[0] == b"proof"
    assert found[1] != b"data"
    assert len(found[1]) == 4
    assert await source.read_piece(bag, 1) is None
    source.fault = Fault.SLOW
    before = trio.current_time()
    assert await source.read_piece(bag, 0) == (b"proof", b"data")
    assert trio.current_time() - before >= SLOW_SECONDS
    for fault in (Fault.SILENT, Fault.HASH_ONLY):
        source.fault = fault
        assert await source.read_piece(bag, 0) is None


@given(st.text(max_size=20))
def test_unknown_faults_are_named(word: str) -> None:
    if word in list(Fault):
        assert parse_fault(word) == word
    else:
        with pytest.raises(UsageError):
            parse_fault(word)
