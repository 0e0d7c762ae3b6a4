"""What thousands of peers make us hold: one total for all, strangers lose theirs first, and the count is right."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.simnet import SimNet, SimNode
from tests.unit.network.test_rldp import part_message, rldp_query
from tonfs.network import adnl_hub, tl
from tonfs.network import adnl_packet as wire
from tonfs.network.adnl_hub import Pair, Remote
from tonfs.network.memory_pool import Account, Pool

LIMIT = 4 << 20


def stranger_pair(server: SimNode, number: int, *, chosen: bool = False) -> Pair:
    """A pair as a first packet makes it. Packets are delivered by hand: cryptography would take most of the time."""
    remote = Remote(sha256(b"stranger %d" % number).digest(), None)
    remote.chosen = chosen
    return server.hub.pair_of(server.local, remote, server.net.time)


def halves(pair: Pair, now: float) -> None:
    for number in range(4):
        for offset in range(0, 7168, 1024):
            pair.peer._deliver(wire.Part(bytes([number]) * 32, 8192, offset, bytes(1024)), now)


def transfers(pair: Pair, now: float) -> None:
    for number in range(8):
        pair.rldp.on_custom(part_message(bytes([number]) * 32, rldp_query(bytes(60_000)), 0), now)


def tiny_transfers(pair: Pair, now: float) -> None:
    for number in range(64):
        pair.rldp.on_custom(part_message(bytes([number]) * 32, rldp_query(bytes(800)), 0), now)


def answers(pair: Pair, now: float) -> None:
    for number in range(8):
        pair.peer.answers.begin(bytes([number]) * 32, now)
        pair.peer.answers.finish(bytes([number]) * 32, bytes(8000), now)


def notes(pair: Pair, now: float) -> None:
    for number in range(100):
        message = part_message(number.to_bytes(32, "big"), tl.Writer(tl.ADNL_NOP).done(), 0)
        pair.rldp.on_custom(message, now)


ATTACKS: list[Callable[[Pair, float], None]] = [halves, transfers, tiny_transfers, answers, notes]


@pytest.mark.parametrize("attack", ATTACKS)
def test_thousands_of_strangers_hold_no_more_than_the_total(
    attack: Callable[[Pair, float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adnl_hub, "HELD_BUDGET", LIMIT)
    net = SimNet()
    server = net.node(1)
    friend = stranger_pair(server, -1, chosen=True)
    attack(friend, net.time)
    mine = friend.account.held
    assert mine > 0
    for number in range(3000):
        attack(stranger_pair(server, number), net.time)
        server.hub.incoming.clear()
        assert server.hub.held.used <= LIMIT
    assert server.hub.held.used > LIMIT // 2, "the total was never reached, so nothing was shown"
    assert friend.account.held == mine
    net.run(2 * adnl_hub.PAIR_IDLE)
    assert server.hub._pairs == 0
    assert server.hub.held.used == 0


@pytest.mark.parametrize("attack", [halves, transfers, answers])
def test_a_modest_stranger_is_served_while_greedy_ones_fill_the_pool(
    attack: Callable[[Pair, float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adnl_hub, "HELD_BUDGET", LIMIT)
    net = SimNet()
    client, server = net.node(1), net.node(2)
    server.handler = lambda data: b"re:" + data[:10]
    for number in range(500):
        attack(stranger_pair(server, number), net.time)
    assert server.hub.held.used > 0.7 * LIMIT
    assert net.ask_rldp(client, server, bytes(5000), timeout=2) == b"re:" + bytes(10)
    assert net.ask(client, server, bytes(5000), timeout=2) == b"re:" + bytes(10)
    assert server.hub.held.used <= LIMIT


def test_queries_at_work_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adnl_hub, "QUERY_BUDGET", 100_000)
    net = SimNet()
    client, server = net.node(1), net.node(2)
    server.handler = lambda data: b"done"
    net.ask(client, server, b"meet")
    pair = server.pair(client)
    for number in range(200):
        pair.rldp.on_custom(part_message(number.to_bytes(32, "big"), rldp_query(bytes(700)), 0), net.time)
        pair.rldp.on_custom(part_message(number.to_bytes(32, "big"), rldp_query(bytes(700)), 1), net.time)
    assert server.hub.query_budget.used <= 100_000
    assert 30 < len(server.hub.incoming) <= 64
    server.flush()
    assert server.hub.query_budget.used == 0


class _Holder:
    def __init__(self, pool: Pool) -> None:
        self.pieces: list[int] = []
        self.account = Account(pool, self.drop)

    def drop(self) -> None:
        self.pieces.clear()


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 400), st.sampled_from(["take", "give", "choose", "shed"]))))
def test_the_pool_never_loses_count(steps: list[tuple[int, int, str]]) -> None:
    pool = Pool(1000)
    holders = [_Holder(pool) for _ in range(6)]
    for who, size, what in steps:
        one = holders[who]
        if what == "take":
            before = [sum(other.pieces) for other in holders if other.account.chosen and other is not one]
            if one.account.take(size):
                one.pieces.append(size)
            assert before == [sum(other.pieces) for other in holders if other.account.chosen and other is not one]
        elif what == "give" and one.pieces:
            one.account.give(one.pieces.pop())
        elif what == "choose":
            one.account.choose()
        elif what == "shed":
            one.account.shed()
        assert [sum(holder.pieces) for holder in holders] == [holder.account.held for holder in holders]
        assert pool.used == sum(holder.account.held for holder in holders) <= pool.limit
