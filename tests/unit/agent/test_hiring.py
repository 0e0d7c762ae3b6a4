"""Whose fault it is that a fresh provider shows no proof."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trio.testing import MockClock

from tests.fakes.agent_world import agent_world
from tests.unit.agent.test_contracts import ANN, BOB, TERMS, contract
from tonfs.agent.hiring import Hiring
from tonfs.agent.placement import Event
from tonfs.chain.storage2 import MIN_FUNDING
from tonfs.ids import BagId, NanoTon

BAG = BagId(b"\x11" * 32)


async def test_a_provider_is_blamed_only_when_it_could_have_proved(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with agent_world(tmp_path, providers=0) as world:
        agent = world.make_agent()
        agent.store.add_bag(BAG, b"", 1000, 1, 0.0)
        for key in (ANN, BOB):
            agent.store.quote(BAG, key, 1000, 86400, 0.0)
            agent.store.event(BAG, key, Event.LISTED, 0.0)
        bag, ann = agent.store.bag(BAG), agent.store.placement(BAG, ANN)
        assert bag is not None
        assert ann is not None
        blame = Hiring(agent)._is_to_blame
        poor = contract((ANN, TERMS), (BOB, TERMS))
        paid = replace(poor, available=NanoTon(MIN_FUNDING))
        for status in ("", "error", "active"):
            assert blame(bag, ann, paid, status)
            assert not blame(bag, ann, poor, status), "the contract cannot pay: our failure"
            assert not blame(bag, ann, None, status)
        assert not blame(bag, ann, paid, "downloading"), "nobody else got the data from us either"
        agent.store.set_last_proof(BAG, ANN, 77)
        assert not blame(bag, ann, paid, "downloading"), "its own proof says nothing of others"
        agent.store.set_last_proof(BAG, BOB, 77)
        assert blame(bag, ann, paid, "downloading")
        agent.store.close()
