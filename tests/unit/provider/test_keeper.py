"""The provider's conductor against the real contract: acceptance, proofs by chain time, money, faults, crashes."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.unit.provider.market import SPAN, World, world
from tonfs.bag import verify_proof
from tonfs.chain import Message, Wallet, storage2
from tonfs.chain.storage2 import Terms
from tonfs.ids import NANO, Address, NanoTon, ProviderKey
from tonfs.provider import keeper as keeper_module
from tonfs.provider.faults import Fault
from tonfs.provider.keeper import Keeper


async def accepted(w: World, keeper: Keeper, address: Address) -> None:
    answer = await keeper.request(address, 0)
    assert (answer.status, answer.reason) == ("resolving", "")


async def test_a_contract_is_accepted_downloaded_proved_and_paid(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(tmp_path) as w, w.provider() as keeper:
        bag = w.bag()
        address = await w.hire(bag)
        before = (await w.chain.account(w.wallet.address)).balance
        await accepted(w, keeper, address)
        await w.until_state(keeper, address, "active")
        assert w.net.seeded == {bag.bag_id: w.config.bags / bag.bag_id.hex()}
        first = await w.until_proof(bag, 0)
        assert (await w.contract(bag)).available < 10 * NANO - 59_000_000
        await trio.sleep(10)
        assert (await w.chain.account(w.wallet.address)).balance > before + 40_000_000
        answer = await keeper.request(address, 49_000)
        assert answer.status == "active"
        assert bag.info is not None
        assert answer.downloaded == bag.info.file_size
        verify_proof(bag.info, 49_000 // 4096, answer.proof)
        assert first <= await w.chain.now()


async def test_proofs_come_after_each_span_of_chain_time(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(tmp_path) as w, w.provider() as keeper:
        bag = w.bag()
        await accepted(w, keeper, await w.hire(bag))
        last = await w.until_proof(bag, 0)
        for _ in range(3):
            await trio.sleep(SPAN / 2)
            assert (await w.entry(bag)).last_proof_time == last
            after = await w.until_proof(bag, last, patience=SPAN)
            assert SPAN <= after - last < SPAN + 60
            last = after


async def test_when_the_chain_clock_jumps_the_proof_comes_at_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(tmp_path) as w, w.provider() as keeper:
        bag = w.bag()
        await accepted(w, keeper, await w.hire(bag))
        last = await w.until_proof(bag, 0)
        w.chain.advance(5 * SPAN)
        assert await w.until_proof(bag, last, patience=30) >= last + 5 * SPAN


async def test_several_due_proofs_travel_in_externals_of_four(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(tmp_path) as w, w.provider() as keeper:
        bags = [w.bag(f"bag{n}", 9_000 + n) for n in range(6)]
        for bag in bags:
            await accepted(w, keeper, await w.hire(bag))
        for bag in bags:
            await w.until_proof(bag, 0)
        await trio.sleep(20)
        seqno = w.wallet.seqno(await w.chain.account(w.wallet.address))
        last = max([(await w.entry(bag)).last_proof_time for bag in bags])
        w.chain.advance(SPAN)
        for bag in bags:
            await w.until_proof(bag, last)
        assert w.wallet.seqno(await w.chain.account(w.wallet.address)) == seqno + 2


@pytest.mark.parametrize(
    ("terms", "value", "reason"),
    [
        (Terms(599, 10**12), 10 * NANO, "too short"),
        (Terms(31 * 86400, 10**9), 10 * NANO, "too long"),
        (Terms(30 * 86400, 999_999), 10 * NANO, "rate too low"),
        (Terms(SPAN, 2_000_000_000), 10 * NANO, "bounty too low"),
        (Terms(SPAN, 10**12), 70_000_000, "balance below 0.08"),
    ],
)
async def test_bad_offers_are_refused_with_a_reason(
    tmp_path: Path, autojump_clock: MockClock, terms: Terms, value: int, reason: str
) -> None:
    async with world(tmp_path) as w, w.provider() as keeper:
        address = await w.hire(w.bag(), terms, value=value)
        answer = await keeper.request(address, 0)
        assert answer.status == "error"
        assert reason in answer.reason
        assert keeper.kept == {}


async def test_contracts_that_are_not_ours_are_refused(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(tmp_path, max_bag_size=60_000, space=80_000) as w, w.provider() as keeper:
        stranger = ProviderKey(bytes(31) + b"\1")
        unlisted = await w.hire(w.bag("unlisted"), providers={stranger: Terms(SPAN, 10**12)})
        assert "not listed" in (await keeper.request(unlisted, 0)).reason
        assert "not deployed" in (await keeper.request(Address("0:" + "ab" * 32), 0)).reason
        assert "not deployed" in (await keeper.request(w.owner.address, 0)).reason, "other code is no storage contract"
        assert "too big" in (await keeper.request(await w.hire(w.bag("big", 70_000)), 0)).reason
        await accepted(w, keeper, await w.hire(w.bag("fits")))
        assert "no space" in (await keeper.request(await w.hire(w.bag("too much")), 0)).reason


async def test_a_refused_contract_is_accepted_once_it_is_mended(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(tmp_path) as w, w.provider() as keeper:
        bag = w.bag()
        address = await w.hire(bag, value=60_000_000)
        assert (await keeper.request(address, 0)).status == "error"
        await w.send(Message(address, NanoTon(NANO)))
        await trio.sleep(5)
        await accepted(w, keeper, address)


@pytest.mark.allow_logs
async def test_an_unreachable_chain_is_a_temporary_error_and_drops_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with world(tmp_path) as w, w.provider() as keeper:
        bag = w.bag()
        address = await w.hire(bag)
        w.chain.offline = True
        assert (await keeper.request(address, 0)).reason == "temporary provider error"
        w.chain.offline = False
        await trio.sleep(5)
        await accepted(w, keeper, address)
        last = await w.until_proof(bag, 0)
        w.chain.offline = True
        await trio.sleep(3 * SPAN)
        assert keeper.problem
        w.chain.offline = False
        await w.until_proof(bag, last)
        assert keeper.problem == ""


async def test_a_removed_provider_deletes_the_bag(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(tmp_path) as w, w.provider() as keeper:
        bag = w.bag()
        address = await w.hire(bag)
        await accepted(w, keeper, address)
        await w.until_proof(bag, 0)
        await w.hire(bag, providers={})
        await w.until_state(keeper, address, "gone")
        assert not (w.config.bags / bag.bag_id.hex()).exists()
        assert w.net.seeded == {}
        assert "not listed" in (await keeper.request(address, 0)).reason


async def test_a_bag_that_another_contract_needs_stays(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(tmp_path) as w, w.provider() as keeper:
        bag = w.bag()
        first = await w.hire(bag)
        await accepted(w, keeper, first)
        await w.until_state(keeper, first, "active")
        other = Wallet.from_seed(b"q" * 32, "v4r2")
        await w.chain.give(other.address, 20 * NANO)
        assert bag.info is not None
        second = w.address(bag, other)
        body = storage2.modify_providers(1, {w.key: Terms(SPAN, w.rate(bag))})
        init = storage2.state_init(bag.info, other.address)
        await w.send(Message(second, NanoTon(5 * NANO), body, init), wallet=other)
        await accepted(w, keeper, second)
        await w.until_state(keeper, second, "active")
        await w.hire(bag, providers={})
        await w.until_state(keeper, first, "gone")
        assert bag.bag_id in w.net.seeded
        assert (await keeper.request(second, 5)).status == "active"


async def test_low_balance_warns_stops_proving_and_recovers(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(tmp_path) as w, w.provider() as keeper:
        bag = w.bag()
        address = await w.hire(bag, value=110_000_000)
        await accepted(w, keeper, address)
        last = await w.until_proof(bag, 0)
        await trio.sleep(60)
        answer = await keeper.request(address, 0)
        assert answer.status == "warning-balance"
        assert answer.proof
        w.chain.advance(SPAN)
        await trio.sleep(60)
        assert (await w.entry(bag)).last_proof_time == last
        await w.send(Message(address, NanoTon(NANO)))
        await w.until_proof(bag, last)
        assert (await keeper.request(address, 0)).status == "active"


async def test_low_balance_for_too_long_ends_the_contract(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(tmp_path) as w, w.provider() as keeper:
        bag = w.bag()
        address = await w.hire(bag)
        await accepted(w, keeper, address)
        await w.until_proof(bag, 0)
        await w.withdraw(bag)
        await w.until_state(keeper, address, "warning-balance")
        w.chain.advance(SPAN + 3000)
        await trio.sleep(60)
        await w.until_state(keeper, address, "warning-balance")
        w.chain.advance(700)
        await w.until_state(keeper, address, "gone")
        assert not (w.config.bags / bag.bag_id.hex()).exists()


async def test_changed_terms_are_judged_anew(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(tmp_path) as w, w.provider() as keeper:
        bag = w.bag()
        address = await w.hire(bag)
        await accepted(w, keeper, address)
        await w.until_proof(bag, 0)
        await w.hire(bag, Terms(2 * SPAN, w.rate(bag)))
        await w.until_proof(bag, 0)
        await w.hire(bag, Terms(SPAN, 2_000_000))
        await w.until_state(keeper, address, "gone")


async def test_a_contract_that_lies_about_its_bag_is_dropped(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The bag is real, the contract says another size: its address cannot be recomputed from the bag."""
    async with world(tmp_path) as w, w.provider() as keeper:
        bag = w.bag()

        class Liar:
            bag_id = bag.bag_id
            file_size = 40_000
            piece_size = 4096
            root_hash = bag.info.root_hash if bag.info is not None else b""

        address = storage2.contract_address(Liar(), w.owner.address)
        body = storage2.modify_providers(1, {w.key: Terms(SPAN, 10**11)})
        await w.send(Message(address, NanoTon(NANO), body, storage2.state_init(Liar(), w.owner.address)))
        await accepted(w, keeper, address)
        await w.until_state(keeper, address, "gone")
        assert not (w.config.bags / bag.bag_id.hex()).exists()


async def test_a_download_without_progress_is_given_up(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(tmp_path, stall=600) as w, w.provider() as keeper:
        bag = w.bag()
        w.net.limit = 5
        address = await w.hire(bag)
        await accepted(w, keeper, address)
        await w.until_state(keeper, address, "downloading")
        assert 0 < (await keeper.request(address, 0)).downloaded < 50_000
        await trio.sleep(500)
        await w.until_state(keeper, address, "downloading")
        await w.until_state(keeper, address, "gone", patience=300)
        assert not (w.config.bags / bag.bag_id.hex()).exists()


async def test_a_killed_provider_goes_on_where_it_was(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(tmp_path) as w:
        bag = w.bag()
        w.net.limit = 5
        async with w.provider() as keeper:
            address = await w.hire(bag)
            await accepted(w, keeper, address)
            await w.until_state(keeper, address, "downloading")
            await trio.sleep(1)
        w.net.limit = None
        async with w.provider() as keeper:
            assert (await keeper.request(address, 0)).status == "downloading"
            last = await w.until_proof(bag, 0)
        async with w.provider() as keeper:
            assert (await keeper.request(address, 0)).status == "active"
            w.chain.advance(SPAN)
            await w.until_proof(bag, last)
            assert bag.bag_id in w.net.seeded


async def test_a_provider_killed_with_a_proof_in_flight_proves_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(tmp_path) as w:
        bag = w.bag()
        async with w.provider() as keeper:
            await accepted(w, keeper, await w.hire(bag))
            sent = len(w.chain.sent)
            with trio.fail_after(60):
                while len(w.chain.sent) == sent:
                    await w.chain.wait_block()
        async with w.provider():
            last = await w.until_proof(bag, 0)
            await trio.sleep(120)
            assert (await w.entry(bag)).last_proof_time == last
            paid = [t for t in await w.chain.transactions(w.address(bag)) if t.out_messages and t.succeeded]
            assert len([t for t in paid if t.out_messages[0].op == storage2.OP_REWARD]) == 1


async def test_a_lost_external_is_sent_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(tmp_path) as w, w.provider() as keeper:
        bag = w.bag()
        await w.chain.wait_block()
        address = await w.hire(bag)
        w.chain.lose = 2
        await accepted(w, keeper, address)
        await w.until_proof(bag, 0, patience=120)


async def test_without_coins_nothing_is_proved_and_status_says_so(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(tmp_path) as w:
        w.wallet = Wallet.from_seed(b"r" * 32, "v3r2")
        async with w.provider() as keeper:
            bag = w.bag()
            await accepted(w, keeper, await w.hire(bag))
            await trio.sleep(30)
            assert "too little" in keeper.problem
            await w.chain.give(w.wallet.address, NANO)
            await w.until_proof(bag, 0)


# Faults.


async def test_hash_only_keeps_proving_without_the_data_and_heals(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(tmp_path) as w:
        bag = w.bag()
        assert bag.info is not None
        async with w.provider() as keeper:
            address = await w.hire(bag)
            await accepted(w, keeper, address)
            last = await w.until_proof(bag, 0)
            await keeper.set_fault(Fault.HASH_ONLY)
            data = w.config.bags / bag.bag_id.hex() / "files" / "one.bin"
            assert not data.exists()
            w.chain.advance(SPAN)
            last = await w.until_proof(bag, last)
            for byte in (0, 20_000, 49_999):
                answer = await keeper.request(address, byte)
                assert answer.status == "active"
                verify_proof(bag.info, byte // 4096, answer.proof)
        async with w.provider() as keeper:
            assert keeper.fault is Fault.HASH_ONLY
            w.chain.advance(SPAN)
            await w.until_proof(bag, last)
            assert not data.exists()
            await keeper.set_fault(Fault.NONE)
            await trio.sleep(30)
            assert data.read_bytes() == (tmp_path / "one.bin").read_bytes()
            assert bag.bag_id in w.net.seeded


async def test_hash_only_throws_new_bags_away_too(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(tmp_path) as w, w.provider() as keeper:
        await keeper.set_fault(Fault.HASH_ONLY)
        bag = w.bag()
        address = await w.hire(bag)
        await accepted(w, keeper, address)
        await w.until_proof(bag, 0)
        with trio.fail_after(1000):
            while (w.config.bags / bag.bag_id.hex() / "files" / "one.bin").exists():
                await w.chain.wait_block()
        assert (await keeper.request(address, 49_999)).proof


async def test_a_silent_provider_does_not_prove_until_it_heals(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(tmp_path) as w, w.provider() as keeper:
        bag = w.bag()
        await accepted(w, keeper, await w.hire(bag))
        last = await w.until_proof(bag, 0)
        await keeper.set_fault(Fault.SILENT)
        w.chain.advance(2 * SPAN)
        await trio.sleep(120)
        assert (await w.entry(bag)).last_proof_time == last
        await keeper.set_fault(Fault.NONE)
        await w.until_proof(bag, last)


async def test_damage_on_disk_is_fetched_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(tmp_path) as w:
        bag = w.bag()
        async with w.provider() as keeper:
            address = await w.hire(bag)
            await accepted(w, keeper, address)
            await w.until_state(keeper, address, "active")
        (w.config.bags / bag.bag_id.hex() / "tree.bin").write_bytes(b"short")
        async with w.provider() as keeper:
            await trio.sleep(10)
            assert (await keeper.request(address, 49_999)).status == "active"
            data = w.config.bags / bag.bag_id.hex() / "files" / "one.bin"
            assert data.read_bytes() == (tmp_path / "one.bin").read_bytes()


async def test_a_removal_cut_short_by_a_crash_is_finished(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        bag = w.bag()

        async def die(self: Keeper, record: object) -> None:
            await trio.lowlevel.checkpoint()

        with monkeypatch.context() as patch:
            patch.setattr(keeper_module.Keeper, "_remove", die)
            async with w.provider() as keeper:
                address = await w.hire(bag)
                await accepted(w, keeper, address)
                await w.until_state(keeper, address, "active")
                await w.hire(bag, providers={})
                await w.until_state(keeper, address, "dropped")
                assert (await keeper.request(address, 0)).status == "error"
        assert (w.config.bags / bag.bag_id.hex()).exists()
        async with w.provider() as keeper:
            assert keeper.kept == {}
            assert not (w.config.bags / bag.bag_id.hex()).exists()
