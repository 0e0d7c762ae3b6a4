"""The agent at work: real contract code, real money, providers that one can break. All in trio's time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.fakes.agent_world import World, agent_world, noise
from tonfs.agent import fetcher, local
from tonfs.agent.placement import Event, State
from tonfs.chain.api import AccountState
from tonfs.chain.messages import absent_account
from tonfs.errors import NotFound
from tonfs.ids import NANO, Address, BagId

pytestmark = pytest.mark.allow_logs  # an agent that is restarted may say so


async def filled(world: World, files: int = 3) -> BagId:
    for inode in range(files):
        world.front.write(inode, noise(50_000))
    await world.proven()
    (bag,) = world.front.known
    return bag


async def test_settled_files_become_a_bag_at_the_cheapest_providers_each_audited(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with agent_world(tmp_path) as world, world.running() as agent:
        bag = await filled(world)
        active = world.placements(State.ACTIVE)
        assert {p.provider for p in active} == {p.key for p in world.providers[:3]}
        assert all(p.audit_pieces > 0 and p.last_proof > 0 for p in active)
        assert bag in world.net.seeded
        row = agent.store.bag(bag)
        assert row is not None
        assert row.contract is not None
        contract, _ = await agent.money.contract(row.contract, fresh=True)
        assert contract is not None
        assert set(contract.providers) == {p.provider for p in active}


async def test_a_file_that_changes_while_it_is_packed_is_packed_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with agent_world(tmp_path) as world:
        world.front.write(1, noise(10_000))
        changed = False

        def change(name: str) -> None:
            nonlocal changed
            if name == "front commit_pack" and not changed:
                changed = True
                world.front.write(1, noise(20_000))

        world.front.on_call = change
        async with world.running() as agent:
            await world.proven()
            assert len(world.front.known) == 1
            assert world.front.files[1].bag in world.front.known
            assert len(agent.store.bags("live")) == 1
            assert len(list((tmp_path / "packs").iterdir())) == 1


@pytest.mark.parametrize("fault", ["silent", "hash-only", "wrong-bytes", "vanish"])
async def test_a_broken_provider_is_found_failed_dropped_from_the_contract_and_replaced(
    fault: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with agent_world(tmp_path) as world, world.running() as agent:
        bag = await filled(world)
        victim = world.providers[0]
        victim.fault = fault
        await world.until(lambda: victim.key in {p.provider for p in world.placements(State.GONE)})
        await world.until(lambda: len(world.placements(State.ACTIVE)) == 3)
        failures = {info.key for info in agent.store.providers().values() if info.failures}
        assert failures == {victim.key}
        row = agent.store.bag(bag)
        assert row is not None
        assert row.contract is not None
        contract, _ = await agent.money.contract(row.contract, fresh=True)
        assert contract is not None
        assert victim.key not in contract.providers
        assert len(contract.providers) == 3


async def test_when_we_are_offline_nobody_is_struck(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with agent_world(tmp_path) as world, world.running() as agent:
        await filled(world)
        for trouble in ("offline", "no_dht"):
            setattr(world.net, trouble, True)
            await trio.sleep(600)
            assert not world.placements(State.FAILED, State.GONE, State.EVICTING)
            assert not any(info.failures for info in agent.store.providers().values())
            setattr(world.net, trouble, False)
            await world.until(lambda: len(world.placements(State.ACTIVE)) == 3)


async def test_an_unreachable_chain_condemns_nobody_and_costs_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with agent_world(tmp_path) as world, world.running():
        await filled(world)
        before = len(await world.payments())
        world.chain.offline = True
        await trio.sleep(600)
        assert not world.placements(State.FAILED, State.GONE, State.SUSPECT)
        world.chain.offline = False
        await world.until(lambda: len(world.placements(State.ACTIVE)) == 3)
        assert len(await world.payments()) == before


async def test_too_few_providers_are_said_and_the_rest_is_hired_when_one_comes(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with agent_world(tmp_path, providers=3) as world, world.running() as agent:
        world.providers[2].fault = "silent"
        world.front.write(1, noise(1000))
        await world.until(lambda: len(world.placements(State.ACTIVE)) == 2)
        assert any("1 more replicas are wanted" in problem.text for problem in agent.problems)
        world.providers[2].fault = ""
        await world.proven()
        await trio.sleep(5)
        assert not list(agent.problems)


async def test_a_provider_that_never_proves_is_given_up_and_replaced(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with agent_world(tmp_path) as world, world.running():
        world.providers[0].fault = "lazy"
        world.front.write(1, noise(1000))
        await world.proven(timeout=1200)
        gone = world.placements(State.GONE)
        assert [p.provider for p in gone] == [world.providers[0].key]


async def test_a_failed_provider_may_come_back_after_a_while(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with agent_world(tmp_path, providers=3) as world, world.running():
        await filled(world)
        victim = world.providers[1]
        victim.fault = "wrong-bytes"
        await world.until(lambda: victim.key in {p.provider for p in world.placements(State.GONE)})
        victim.fault = ""
        await world.until(lambda: len(world.placements(State.ACTIVE)) == 3, timeout=900)


async def test_a_deleted_tree_brings_the_money_back_and_leaves_a_receipt(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with agent_world(tmp_path) as world, world.running() as agent:
        bag = await filled(world)
        for inode in list(world.front.files):
            world.front.delete(inode)
        await world.until(lambda: not agent.store.bags("live", "closing"))
        (receipt,) = agent.store.receipts()
        assert receipt.bag_id == bag
        assert receipt.returned > 0
        assert receipt.funded == receipt.returned + receipt.rewards + receipt.fees + receipt.left_over
        contract, _ = await agent.money.contract(receipt.contract, fresh=True)
        assert contract is not None
        assert not contract.providers
        assert not contract.available
        ledger = await agent.money.ledger()
        assert ledger["total"]["adds_up"]
        assert ledger["total"]["received"] == 100 * NANO
        assert bag not in world.net.seeded
        assert not (tmp_path / "packs" / bag.hex()).exists()


async def test_a_pack_that_is_still_in_use_is_never_closed(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with agent_world(tmp_path) as world, world.running() as agent:
        bag = await filled(world)
        world.front._packs = lambda _params: {  # type: ignore[method-assign]
            "packs": [{"id": 1, "bag_id": bag.hex(), "size": 1, "live": 0, "files": 3, "asked": 0, "unsaid": True}]
        }
        await trio.sleep(60)
        assert [b.bag_id for b in agent.store.bags("live", "closing")] == [bag]
        assert not agent.store.receipts()
        assert len(world.placements(State.ACTIVE)) == 3


async def test_a_proof_that_our_contract_could_not_pay_for_is_nobodys_failure(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with agent_world(tmp_path) as world, world.running() as agent:
        bag = await filled(world)
        agent.paused = True  # nobody tops it up
        for _ in range(7):
            world.chain.advance(86_400)
            await trio.sleep(60.0)
        contract = await world.contract(bag)
        assert all(contract.available < contract.bounty(key) for key in contract.providers)
        world.chain.advance(2 * 86_400)
        await trio.sleep(600.0)
        assert len(world.placements(State.ACTIVE)) == 3
        assert not any(info.failures for info in agent.store.providers().values())


async def test_while_we_are_offline_no_fresh_provider_is_given_up(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with agent_world(tmp_path) as world, world.running() as agent:
        for provider in world.providers:
            provider.fault = "lazy"
        world.front.write(1, noise(50_000))
        await world.until(lambda: len(world.placements(State.FUNDING)) == 3)
        world.net.offline = True
        await trio.sleep(2 * world.settings.policy.replica.start_deadline)
        assert len(world.placements(State.FUNDING)) == len(world.placements()) == 3
        assert not any(info.failures for info in agent.store.providers().values())


async def test_a_dead_pack_that_a_file_needs_again_lives_on_with_its_contract_and_data(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with agent_world(tmp_path) as world, world.running() as agent:
        bag = await filled(world)
        agent.store.set_bag_state(bag, "closing")  # it had no live byte for a moment
        await trio.sleep(60.0)
        row = agent.store.bag(bag)
        assert row is not None
        assert row.state == "live"
        assert not agent.store.receipts()
        assert len((await world.contract(bag)).providers) == 3
        assert (tmp_path / "packs" / bag.hex() / "files" / "pack" / "data").exists()


async def test_a_damaged_pack_is_moved_aside_and_not_deleted(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with agent_world(tmp_path) as world, world.running() as agent:
        bag = await filled(world)
        row = agent.store.bag(bag)
        assert row is not None
        directory = tmp_path / "packs" / bag.hex()
        (directory / "bag.json").write_text("{", encoding="ascii")
        with local.opened(row, directory) as stored:
            assert stored.have_count == 0
        (aside,) = (tmp_path / "packs").glob("*.damaged-*")
        assert (aside / "files" / "pack" / "data").exists()


async def test_what_directories_say_about_replicas_counts_more_than_the_volume(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with agent_world(tmp_path) as world:
        world.front.asked = 2
        async with world.running() as agent:
            world.front.write(1, noise(50_000))
            await world.until(lambda: len(world.placements(State.ACTIVE)) == 2)
            await trio.sleep(600)
            assert len(world.placements(State.ACTIVE, State.FUNDING, State.QUOTED)) == 2, "three are the volume's"
            (bag,) = agent.store.bags("live")
            assert world.front.wanted == {bag.bag_id: 2}
            world.front.asked = 4
            await world.until(lambda: len(world.placements(State.ACTIVE)) == 4)
        world.front.asked = 0
        async with world.running() as agent:
            assert agent.store.bags("live")[0].replicas == 4, "it is remembered"
            await world.until(lambda: agent.store.bags("live")[0].replicas is None)
            await world.until(lambda: world.front.wanted == {bag.bag_id: 3})
            assert len(world.placements(State.ACTIVE)) == 4, "nobody is dismissed for that"


async def test_a_front_that_goes_away_and_comes_back_is_waited_for(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with agent_world(tmp_path) as world:
        world.front.down = True
        async with world.running() as agent:
            await trio.sleep(20)
            assert "front" in agent.problems
            world.front.down = False
            await filled(world)
            world.front.down = True
            await trio.sleep(100)
            world.front.down = False
            world.front.write(9, noise(1000))
            await world.proven(bags=2)


async def test_a_front_that_was_started_again_is_told_at_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with agent_world(tmp_path) as world, world.running():
        bag = await filled(world)
        await trio.sleep(2.0)
        world.front.told = {}
        await world.until(lambda: world.front.told.get(bag) == 3, timeout=5.0)


async def test_a_paused_agent_packs_and_pays_nothing_until_it_goes_on(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with agent_world(tmp_path) as world, world.running() as agent:
        agent.paused = True
        world.front.write(1, noise(1000))
        await trio.sleep(60)
        assert not world.front.known
        assert not await world.payments()
        agent.paused = False
        await world.proven()


async def test_a_paused_agent_winds_nothing_down_and_replaces_nobody_until_it_goes_on(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with agent_world(tmp_path) as world, world.running() as agent:
        bag = await filled(world)
        agent.paused = True
        paid = await world.payments()
        world.providers[0].fault = "vanish"
        await trio.sleep(300.0)
        for inode in list(world.front.files):
            world.front.delete(inode)
        await trio.sleep(60.0)
        assert await world.payments() == paid
        agent.paused = False
        await world.until(lambda: [receipt.bag_id for receipt in agent.store.receipts()] == [bag])


async def test_an_empty_wallet_is_a_clear_problem_and_no_busy_loop(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with agent_world(tmp_path, coins=0) as world, world.running() as agent:
        world.front.write(1, noise(1000))
        await world.until(lambda: any("The wallet holds" in problem.text for problem in agent.problems))
        await trio.sleep(60)
        assert len(world.chain.sent) <= len(world.providers) + 1  # only the providers' registrations
        await world.chain.give(world.wallet.address, 50 * NANO)
        await world.proven()


async def test_a_contract_that_runs_dry_is_topped_up(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with agent_world(tmp_path) as world, world.running() as agent:
        await filled(world)
        for _ in range(3):
            world.chain.advance(86_400)
            await trio.sleep(400)
        kinds = Counter(r["kind"] for r in agent.store.conn.execute("SELECT kind FROM intent"))
        assert kinds["topup"] >= 1
        assert kinds["open"] == 1
        assert len(world.placements(State.ACTIVE)) == 3


async def test_local_data_goes_only_after_enough_audits_that_brought_data(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with agent_world(tmp_path) as world, world.running() as agent:
        bag = await filled(world)
        victim = world.providers[0]
        victim.fault = "silent"
        await world.until(lambda: world.placements(State.SUSPECT))
        dropped, kept = await fetcher.drop_local(agent, [bag, BagId(bytes(32))])
        assert not dropped
        assert len(kept) == 2
        assert (tmp_path / "packs" / bag.hex() / "files" / "pack" / "data").stat().st_blocks > 0
        victim.fault = ""
        await world.until(lambda: len(world.placements(State.ACTIVE)) == 3)
        dropped, kept = await fetcher.drop_local(agent, [bag])
        assert dropped == [bag]
        row = agent.store.bag(bag)
        assert row is not None
        assert not row.local


async def test_while_nothing_can_be_learned_no_replica_counts_and_nothing_is_dropped(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with agent_world(tmp_path) as world, world.running() as agent:
        bag = await filled(world)
        world.net.offline = True
        await world.until(lambda: world.front.told[bag] == 0)
        assert len(world.placements(State.ACTIVE)) == 3
        assert (await fetcher.drop_local(agent, [bag]))[0] == []
        world.net.offline = False
        await world.proven()
        assert (await fetcher.drop_local(agent, [bag]))[0] == [bag]


async def test_audits_of_long_ago_or_of_the_future_let_nothing_go_and_are_made_anew(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with agent_world(tmp_path) as world:
        async with world.running():
            bag = await filled(world)
        agent = world.make_agent()  # whose auditor does not run
        world.clock.advance(fetcher.STALE_AFTER + 60.0)
        assert (await fetcher.drop_local(agent, [bag]))[0] == []
        world.clock.advance(-2 * fetcher.STALE_AFTER)  # they were made while the clock was wrong
        assert (await fetcher.drop_local(agent, [bag]))[0] == []
        agent.store.close()
        async with world.running() as agent:
            world.net.audited.clear()
            await world.until(lambda: len(world.net.audited) >= 3, timeout=10.0)
            assert (await fetcher.drop_local(agent, [bag]))[0] == [bag]


async def test_the_last_providers_that_may_have_evicted_data_are_never_given_up(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with agent_world(tmp_path) as world, world.running() as agent:
        bag = await filled(world)
        assert (await fetcher.drop_local(agent, [bag]))[0] == [bag]
        hired = world.placements(State.ACTIVE)
        for placement in hired:
            world.provider(placement.provider).fault = "silent"
        await world.until(lambda: len(world.placements(State.SUSPECT)) == 3)
        world.front.asked = 5  # more are wanted, but who is hired now could get the data from nobody
        await trio.sleep(1200.0)
        assert len(world.placements()) == 3
        assert {p.provider for p in world.placements(State.SUSPECT)} == {p.provider for p in hired}
        assert set((await world.contract(bag)).providers) == {p.provider for p in hired}
        condemned = hired[0].provider  # while there was still another copy, say
        agent.store.event(bag, condemned, Event.CONDEMN, world.clock.now())
        await trio.sleep(120.0)
        assert condemned in (await world.contract(bag)).providers
        for placement in hired:
            world.provider(placement.provider).fault = ""
        await world.until(lambda: len(world.placements(State.ACTIVE)) == 5)
        await fetcher.fetch(agent, bag, 0, 10, 30.0)


async def test_what_cannot_be_fetched_is_an_error_with_a_name(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with agent_world(tmp_path) as world, world.running() as agent:
        await filled(world)
        with pytest.raises(NotFound):
            await fetcher.fetch(agent, BagId(bytes(32)), 0, 10, 5.0)


async def test_what_was_fetched_a_moment_ago_stays_for_its_reader(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with agent_world(tmp_path) as world, world.running() as agent:
        bag = await filled(world)
        await fetcher.fetch(agent, bag, 0, 10, 5.0)
        asked = trio.current_time()
        dropped, _ = await fetcher.drop_local(agent, [bag])
        assert dropped == [bag]
        assert trio.current_time() - asked >= fetcher.READ_LEASE


async def test_readers_of_a_pack_that_shall_go_are_not_held_up(tmp_path: Path, autojump_clock: MockClock) -> None:
    """`tonfs evict` while somebody reads: each read used to wait until the pack was dropped, five seconds."""
    async with agent_world(tmp_path) as world, world.running() as agent, trio.open_nursery() as nursery:
        bag = await filled(world)
        answers: list[tuple[list[BagId], list[tuple[BagId, str]]]] = []

        async def drop() -> None:
            answers.append(await fetcher.drop_local(agent, [bag]))

        await fetcher.fetch(agent, bag, 0, 10, 5.0)
        nursery.start_soon(drop)
        for _ in range(40):
            await trio.sleep(1.0)
            asked = trio.current_time()
            await fetcher.fetch(agent, bag, 0, 10, 60.0)
            assert trio.current_time() - asked < fetcher.READ_LEASE
        assert answers == [([], [(bag, "it is being read")])]
        nursery.start_soon(drop)
        await world.until(lambda: len(answers) == 2)
        assert answers[1] == ([bag], [])


async def test_an_audit_that_fails_while_local_data_is_about_to_go_keeps_it(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with agent_world(tmp_path, providers=3) as world, world.running() as agent:
        bag = await filled(world)
        forget = world.net.forget

        async def slow_forget(bag_id: BagId) -> None:
            await forget(bag_id)
            world.providers[0].fault = "silent"
            await trio.sleep(120.0)

        monkeypatch.setattr(world.net, "forget", slow_forget)
        dropped, kept = await fetcher.drop_local(agent, [bag])
        assert (dropped, [why for _, why in kept]) == ([], ["not enough audited replicas yet"])
        row = agent.store.bag(bag)
        assert row is not None
        assert row.local
        await world.until(lambda: bag in world.net.seeded)


async def test_an_error_between_signing_and_seeing_does_not_make_the_same_process_pay_again(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with agent_world(tmp_path) as world:
        send, broken = world.chain.send_boc, []

        async def break_once(boc: bytes) -> None:
            if not broken:
                broken.append(boc)
                raise RuntimeError("a bug, a full disk")
            await send(boc)

        async with world.running() as agent:
            with monkeypatch.context() as patch:
                patch.setattr(world.chain, "send_boc", break_once)
                world.front.write(1, noise(50_000))
                await world.until(lambda: broken)
                monkeypatch.setattr(world.chain, "send_boc", send)
            await world.proven()
            kinds = Counter(r["kind"] for r in agent.store.conn.execute("SELECT kind FROM intent"))
        assert kinds == {"open": 1}
        assert len(await world.payments()) == 1


async def test_after_a_restart_a_server_that_lags_does_not_make_us_open_a_contract_twice(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with agent_world(tmp_path) as world:
        async with world.running() as agent:
            bag = await filled(world)
            row = agent.store.bag(bag)
        paid = await world.payments()
        show = world.chain.account

        async def show_the_past(address: Address) -> AccountState:
            state = await show(address)
            behind = row is not None and address == row.contract and trio.current_time() < until
            return absent_account(address, 0, b"", state.seqno, state.now) if behind else state

        until = trio.current_time() + 120.0
        monkeypatch.setattr(world.chain, "account", show_the_past)
        async with world.running():
            await trio.sleep(300.0)
        assert await world.payments() == paid
