from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tonfs.network.storage_session import mask_of
from tonfs.network.storage_transfer import (
    ASKERS_MAX,
    STRIKES,
    WINDOW_MAX,
    WRONG_MAX,
    Order,
    PieceScheduler,
    Reputation,
)


class Desk:
    """A scheduler with its reputations at hand."""

    def __init__(self, seed: int = 1) -> None:
        self.reputations: dict[str, Reputation] = {}
        self.scheduler: PieceScheduler[str] = PieceScheduler(
            lambda peer: self.reputations.setdefault(peer, Reputation()), random.Random(seed)
        )

    def take(self, peer: str, now: float = 0.0, limit: int = 1000) -> list[int]:
        """Everything the scheduler gives this peer now."""
        out = []
        while len(out) < limit and (piece := self.scheduler.next(peer, now)) is not None:
            out.append(piece)
        return out


ALL = (1 << 64) - 1


def test_sequential_pieces_come_in_order_earliest_deadline_first_and_before_bulk():
    desk = Desk()
    desk.scheduler.update_peer("a", ALL, True)
    desk.scheduler.peer("a").window = 16
    desk.scheduler.want(ALL, Order.BULK, 0.0)
    desk.scheduler.want(mask_of([20, 21]), Order.SEQUENTIAL, 50.0)
    desk.scheduler.want(mask_of([9, 7, 8]), Order.SEQUENTIAL, 5.0)
    desk.scheduler.want(1, Order.HEADER, 1e9)
    assert desk.take("a", limit=6) == [0, 7, 8, 9, 20, 21]


def test_the_rarest_piece_comes_first_and_ties_are_broken_by_chance():
    picks = set()
    for seed in range(20):
        desk = Desk(seed)
        desk.scheduler.update_peer("a", 0b11111, True)
        desk.scheduler.update_peer("b", 0b00111, True)
        desk.scheduler.update_peer("c", 0b00001, True)
        desk.scheduler.want(0b11111, Order.BULK, 0.0)
        order = desk.take("a")
        assert set(order[:2]) == {3, 4}
        assert set(order[2:4]) == {1, 2}
        assert order[4] == 0
        picks.add(tuple(order))
    assert len(picks) > 1


def test_nothing_is_asked_of_a_peer_that_chokes_or_lacks_it():
    desk = Desk()
    desk.scheduler.want(0b11, Order.BULK, 0.0)
    desk.scheduler.update_peer("a", 0b11, False)
    desk.scheduler.update_peer("b", 0b100, True)
    assert desk.take("a") == desk.take("b") == desk.take("stranger") == []


def test_the_window_grows_with_good_pieces_and_is_halved_by_silence():
    desk = Desk()
    desk.scheduler.update_peer("a", ALL, True)
    desk.scheduler.want(ALL, Order.BULK, 0.0)
    first = desk.take("a")
    assert len(first) == 6
    for piece in first:
        desk.scheduler.arrived("a", piece, 1.0)
    for _ in range(2):
        for piece in desk.take("a", 1.0):
            desk.scheduler.arrived("a", piece, 2.0)
    flying = desk.take("a", 2.0)
    assert len(flying) == int(WINDOW_MAX)
    for piece in flying:
        desk.scheduler.silent("a", piece, 10.0)
    assert desk.scheduler.peer("a").window == WINDOW_MAX / 2  # one burst is one strike


def test_large_pieces_keep_the_bytes_in_flight_bounded():
    desk = Desk()
    desk.scheduler.set_piece_size(8 << 20)
    desk.scheduler.update_peer("a", ALL, True)
    desk.scheduler.want(ALL, Order.BULK, 0.0)
    assert len(desk.take("a")) == 2


def test_a_slow_piece_is_asked_of_more_peers_each_time_patience_doubles():
    desk = Desk()
    desk.scheduler.want(0b1, Order.SEQUENTIAL, 60.0)
    for peer in "abcde":
        desk.scheduler.update_peer(peer, 0b1, True)
    slow = desk.scheduler.slow_after()
    assert desk.take("a", 0.0) == [0]
    assert desk.take("b", 0.9 * slow) == []
    assert desk.scheduler.wake_at(0.9 * slow) == slow
    assert desk.take("b", slow) == [0]
    assert desk.take("c", 2.9 * slow) == []
    assert desk.take("c", 3 * slow) == [0]
    assert desk.take("d", 7 * slow) == [0]
    assert desk.take("e", 1000.0) == []
    assert desk.scheduler.arrived("b", 0, 4.0) == ["a", "c", "d"]
    desk.scheduler.outrun("a", 0, 1.0)
    assert desk.scheduler.peer("a").window == 3
    assert desk.scheduler.missing == 0


def test_in_bulk_fresh_pieces_go_before_slow_ones():
    desk = Desk()
    desk.scheduler.want(0b11, Order.BULK, 0.0)
    desk.scheduler.update_peer("a", 0b01, True)
    desk.scheduler.update_peer("b", 0b11, True)
    assert desk.take("a", 0.0) == [0]
    assert desk.take("b", 30.0) == [1, 0]


def test_a_reader_does_not_wait_behind_a_slow_peer():
    desk = Desk()
    desk.scheduler.update_peer("fast", ALL, True)
    desk.scheduler.update_peer("slow", ALL, True)
    desk.scheduler.want(mask_of(range(32)), Order.SEQUENTIAL, 60.0)
    desk.take("slow", 0.0, limit=2)
    for piece in desk.take("fast", 0.0):
        desk.scheduler.arrived("fast", piece, 0.1)
    for piece in (0, 1):
        desk.scheduler.arrived("slow", piece, 4.0)
    assert desk.take("slow", 4.0, limit=2) == [31, 30]
    assert desk.take("fast", 4.0, limit=1) == [8]


def test_a_silent_pair_rests_and_the_piece_goes_to_somebody_else():
    desk = Desk()
    desk.scheduler.want(0b1, Order.BULK, 0.0)
    desk.scheduler.update_peer("a", 0b1, True)
    desk.scheduler.update_peer("b", 0b1, True)
    assert desk.take("a", 0.0) == [0]
    desk.scheduler.silent("a", 0, 10.0)
    assert desk.take("a", 10.0) == []
    assert desk.take("b", 10.0) == [0]
    assert desk.take("a", 15.1) == []  # while b works on it
    desk.scheduler.silent("b", 0, 16.0)
    assert desk.take("a", 16.0) == [0]
    desk.scheduler.silent("a", 0, 20.0)
    assert desk.take("a", 29.0) == []
    assert desk.take("a", 30.1) == [0]


def test_a_silent_peer_gets_one_piece_at_a_time_until_it_delivers():
    desk = Desk()
    desk.scheduler.want(ALL, Order.BULK, 0.0)
    desk.scheduler.update_peer("a", ALL, True)
    for piece in desk.take("a", 0.0):
        desk.scheduler.silent("a", piece, 10.0)
    (piece,) = desk.take("a", 10.0)
    desk.scheduler.arrived("a", piece, 11.0)
    assert len(desk.take("a", 11.0)) == 4


def test_enough_silence_in_a_row_means_enough_of_the_peer():
    desk = Desk()
    desk.scheduler.want(ALL, Order.BULK, 0.0)
    desk.scheduler.update_peer("a", ALL, True)
    now, verdicts = 0.0, []
    for _ in range(STRIKES):
        (piece,) = desk.take("a", now, limit=1)
        now += 10
        verdicts.append(desk.scheduler.silent("a", piece, now))
    assert verdicts == [False] * (STRIKES - 1) + [True]


def test_a_liar_is_not_asked_while_others_offer_the_piece_and_never_twice_for_the_same():
    desk = Desk()
    desk.scheduler.want(0b1111, Order.SEQUENTIAL, 60.0)
    desk.scheduler.update_peer("liar", 0b1111, True)
    desk.scheduler.update_peer("good", 0b0011, True)
    assert desk.take("liar", 0.0, limit=1) == [0]
    desk.scheduler.wrong("liar", 0)
    assert desk.take("liar", 1.0) == [2, 3]
    assert desk.take("good", 1.0) == [0, 1]
    desk.scheduler.drop_peer("good")
    assert desk.take("liar", 2.0) == [1]  # piece 0 never again from this one


def test_after_three_wrong_pieces_a_peer_is_banned_even_if_it_comes_back():
    desk = Desk()
    desk.scheduler.want(ALL, Order.SEQUENTIAL, 60.0)
    desk.scheduler.update_peer("liar", ALL, True)
    for piece in range(WRONG_MAX):
        assert desk.take("liar", 0.0, limit=1) == [piece]
        desk.scheduler.wrong("liar", piece)
    assert desk.scheduler.banned("liar")
    desk.scheduler.drop_peer("liar")
    desk.scheduler.update_peer("liar", ALL, True)
    assert desk.take("liar", 1.0) == []


def test_patience_follows_the_peers_pace_within_limits():
    desk = Desk()
    desk.scheduler.update_peer("a", ALL, True)
    desk.scheduler.want(ALL, Order.BULK, 0.0)
    slack = (1 << 17) / (64 << 10)
    assert desk.scheduler.timeout("a") == 10 + slack
    for _ in range(50):
        for piece in desk.take("a", 0.0, limit=1):
            desk.scheduler.arrived("a", piece, 0.01)
    assert desk.scheduler.timeout("a") == 2.5 + slack
    desk.scheduler.set_piece_size(8 << 20)
    assert desk.scheduler.timeout("a") == 2.5 + 128


@st.composite
def swarms(draw: st.DrawFn) -> tuple[int, list[tuple[int, str]], int]:
    pieces = draw(st.integers(1, 40))
    everything = (1 << pieces) - 1
    kinds = st.sampled_from(["good", "silent", "liar", "slow", "flaky"])
    peers = draw(st.lists(st.tuples(st.integers(0, everything), kinds), max_size=5))
    return pieces, [*peers, (everything, "good")], draw(st.integers(0, 1000))


@settings(deadline=None, max_examples=150)
@given(swarms(), st.sampled_from(list(Order)), st.integers(1, 2**40 - 1))
def test_one_honest_peer_is_enough_and_no_rule_is_ever_broken(swarm, order, wanted):
    """Plays a download against good, silent, lying, slow and flaky peers."""
    pieces, peers, seed = swarm
    chance = random.Random(seed)
    desk = Desk(seed)
    scheduler = desk.scheduler
    wanted &= (1 << pieces) - 1
    scheduler.want(wanted, order, 100.0)
    have, now = 0, 0.0
    flying: dict[tuple[int, int], float] = {}
    lied: set[tuple[int, int]] = set()
    names = [f"{number}" for number in range(len(peers))]
    for name, (offers, _) in zip(names, peers, strict=True):
        scheduler.update_peer(name, offers, True)
    for _ in range(4000):
        if not wanted & ~have:
            break
        for number, (offers, kind) in enumerate(peers):
            while (piece := scheduler.next(names[number], now)) is not None:
                assert offers >> piece & 1
                assert wanted >> piece & 1
                assert not have >> piece & 1
                assert (number, piece) not in flying
                assert (number, piece) not in lied
                assert sum(1 for _, other in flying if other == piece) < ASKERS_MAX
                delay = {"good": 0.1, "liar": 0.1, "slow": 4.0, "flaky": 0.2, "silent": 99.0}[kind]
                flying[number, piece] = now + delay + chance.random() / 10
                assert sum(1 for who, _ in flying if who == number) <= WINDOW_MAX
        now = round(now + 0.1, 2)
        for number, piece in sorted(flying):
            if (number, piece) not in flying:
                continue
            kind, name = peers[number][1], names[number]
            asked = scheduler.peer(name).in_flight[piece]
            late = now > asked + scheduler.timeout(name)
            if late or (kind == "flaky" and chance.random() < 0.1):
                del flying[number, piece]
                if scheduler.silent(name, piece, now):
                    for pair in [pair for pair in flying if pair[0] == number]:
                        del flying[pair]
                    scheduler.drop_peer(name)
                    scheduler.update_peer(name, peers[number][0], kind != "silent")
            elif now >= flying[number, piece]:
                del flying[number, piece]
                if kind == "liar":
                    lied.add((number, piece))
                    scheduler.wrong(name, piece)
                else:
                    have |= 1 << piece
                    for other in scheduler.arrived(name, piece, now):
                        scheduler.outrun(other, piece, now)
                        del flying[names.index(other), piece]
    assert not wanted & ~have
    assert scheduler.missing == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 255)), min_size=1), st.integers(1, 255))
def test_bulk_always_picks_one_of_the_rarest(offers, wanted):
    desk = Desk()
    latest = dict(offers)
    for peer, has in offers:
        desk.scheduler.update_peer(peer, has, True)
    desk.scheduler.want(wanted, Order.BULK, 0.0)
    for peer, has in latest.items():
        candidates = [i for i in range(8) if has & wanted & ~_flying(desk) & 1 << i]
        piece = desk.scheduler.next(peer, 0.0)
        if not candidates:
            assert piece is None
        else:
            counts = {i: sum(other >> i & 1 for other in latest.values()) for i in candidates}
            assert counts[piece] == min(counts.values())


def _flying(desk: Desk) -> int:
    return mask_of(piece for peer in "abc" if (view := desk.scheduler.peer(peer)) for piece in view.in_flight)


def test_a_bag_of_a_million_pieces_is_scheduled_in_bounded_time():
    desk = Desk()
    everything = (1 << 1_000_000) - 1
    for peer in "abcde":
        desk.scheduler.update_peer(peer, everything, True)
    desk.scheduler.want(everything, Order.BULK, 0.0)
    for _ in range(50):
        for peer in "abcde":
            for piece in desk.take(peer, 0.0):
                desk.scheduler.arrived(peer, piece, 0.1)
    assert desk.scheduler.missing.bit_count() < 1_000_000 - 50 * 5 * 6
