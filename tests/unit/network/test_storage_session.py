from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.network.storage_models import CppPeer, GoPeer, Wire
from tonfs.network.memory_pool import Account, Pool
from tonfs.network.storage_session import (
    Event,
    Phase,
    SendPing,
    SendUpdate,
    Session,
    advance,
    mask_of,
    numbers,
)
from tonfs.network.storage_tl import State, UpdateHavePieces, UpdateInit, UpdateState

NOW = 1_700_000_000
PIECES = 100
ROOM = Account(Pool(1 << 20), lambda: None)


class Own:
    """Our side: what we have and how we feel about the peer."""

    def __init__(
        self,
        have: int = 0,
        pieces: int = PIECES,
        want: bool = True,
        sid: int = 5,
        seqno: int = NOW,
        pool: Pool | None = None,
    ) -> None:
        room = Account(pool or Pool(1 << 20), lambda: self.session.forget())
        self.have = have
        self.state = State(True, want)
        self.session = Session(sid, seqno, lambda: self.have, lambda: self.state, room)
        self.session.pieces = pieces


FULL = (1 << PIECES) - 1


def test_a_leecher_gets_a_choking_cpp_seeder_to_upload():
    own, cpp = Own(), CppPeer(PIECES, FULL, sid=2**63 + 9)
    own.session.want(True, 0)
    wire = Wire(own.session, cpp)
    wire.run(3)
    assert own.session.sid == cpp.sid
    assert own.session.peer_have == FULL
    assert cpp.peer_state == State(True, True)
    assert not own.session.usable
    wire.run(4)
    assert own.session.usable
    assert own.session.phase is Phase.OPEN


def test_a_cpp_leecher_that_has_nothing_learns_what_we_have():
    own, cpp = Own(FULL, want=False), CppPeer(PIECES, 0, sid=11)
    wire = Wire(own.session, cpp)
    wire.run(3)
    assert cpp.peer_have == FULL
    assert cpp.peer_state == State(True, False)
    assert own.session.peer_state == State(False, False)


@pytest.mark.parametrize("opens", [True, False])
def test_a_go_seeder_accepts_our_init_and_serves(opens):
    own, go = Own(0b1011), GoPeer(PIECES, FULL, opens=opens)
    own.session.want(True, 0)
    wire = Wire(own.session, go)
    wire.run(25)
    assert own.session.usable
    assert own.session.peer_have == FULL
    assert go.peer_have == 0b1011
    assert set(go.refused) <= {"id"}
    assert own.session.phase is Phase.OPEN


def test_a_go_leecher_that_opens_gets_the_init_within_a_second():
    own, go = Own(FULL, want=False), GoPeer(PIECES, 0, opens=True)
    wire = Wire(own.session, go)
    wire.run(1)
    assert go.peer_have == FULL
    assert go.refused == []


def test_a_go_leecher_that_begins_again_under_the_same_id_gets_our_init_again():
    own, go = Own(FULL, want=False), GoPeer(PIECES, 0, opens=True)
    wire = Wire(own.session, go)
    wire.run(30)
    go.reopen()
    assert go.peer_have == 0
    wire.run(2)
    assert go.peer_have == FULL


def test_pieces_that_arrive_are_told_in_order_and_at_most_once_a_second():
    own, go = Own(0, pieces=5000), GoPeer(5000, 0xFF, opens=True)
    wire = Wire(own.session, go)
    wire.run(5)
    own.have = (1 << 4000) - 1
    wire.run(10)
    assert go.peer_have == own.have
    told = [(at, a.update) for at, name, a in wire.log if name == "left" and isinstance(a, SendUpdate)]
    haves = [(at, update) for at, update in told if isinstance(update, UpdateHavePieces)]
    assert [len(update.pieces) for _, update in haves] == [1500, 1500, 1000]
    assert all(later - sooner >= 1 for (sooner, _), (later, _) in itertools.pairwise(haves))


def test_a_repeated_init_is_identical_even_if_pieces_came_since():
    own, go = Own(1), GoPeer(PIECES, 0b10, opens=True)
    wire = Wire(own.session, go)
    wire.run(3)
    own.have |= 0b100
    wire.run(3)
    own.session._event(Event.DEAF)
    wire.run(10)
    assert go.refused == []
    assert go.peer_have == 0b101


def test_a_peer_that_has_everything_is_not_told_about_new_pieces():
    own, cpp = Own(1), CppPeer(PIECES, FULL, sid=3)
    own.session.want(True, 0)
    wire = Wire(own.session, cpp)
    wire.run(10)
    own.have = 0xFF
    wire.run(5)
    assert not any(isinstance(a, SendUpdate) and isinstance(a.update, UpdateHavePieces) for _, _, a in wire.log)


def test_a_restarted_cpp_peer_counts_from_one_and_is_understood():
    own, cpp = Own(FULL, want=False), CppPeer(PIECES, 0b1, sid=3)
    wire = Wire(own.session, cpp)
    wire.run(20)
    wire.right = CppPeer(PIECES, 0b111, sid=4)
    wire.run(10)
    assert own.session.sid == 4
    assert own.session.peer_have == 0b111
    assert wire.right.peer_have == FULL


def test_after_our_restart_a_cpp_peer_still_believes_our_state_changes():
    own, cpp = Own(0, want=False, sid=1), CppPeer(PIECES, FULL, sid=9)
    own.session.want(True, 0)
    wire = Wire(own.session, cpp)
    wire.run(10)
    assert cpp.peer_state == State(True, False)
    again = Own(0, want=True, sid=2, seqno=NOW + 60)
    again.session.want(True, wire.now)
    wire.left = again.session
    wire.run(10)
    assert cpp.peer_state == State(True, True)
    assert again.session.peer_have == FULL


def test_two_of_our_kind_that_open_at_the_same_moment_agree_on_one_id():
    left, right = Own(0b01, sid=100), Own(0b10, sid=200)
    for own in (left, right):
        own.session.want(True, 0)
    wire = Wire(left.session, right.session)
    wire.run(10)
    assert left.session.sid == right.session.sid
    assert (left.session.peer_have, right.session.peer_have) == (0b10, 0b01)
    assert left.session.phase is right.session.phase is Phase.OPEN
    before = wire.sent
    wire.run(100)
    assert wire.sent - before <= 45  # keep-alives only


@pytest.mark.parametrize("fresh_sid", [50, 150])
def test_a_restarted_leecher_that_took_over_an_old_id_still_learns_what_the_seeder_has(fresh_sid):
    """The seeder speaks first, with the id of a session that the leecher has forgotten."""
    seeder, leecher = Own(FULL, want=False, sid=100), Own(0, sid=200)
    leecher.session.want(True, 0)
    wire = Wire(seeder.session, leecher.session)
    wire.run(5)
    assert leecher.session.peer_have == FULL
    again = Own(0, sid=fresh_sid, seqno=NOW + 1000, want=False)
    wire.right = again.session
    seeder.session.want(True, wire.now)  # an audit
    wire.run(5)
    seeder.session.want(False, wire.now)
    assert again.session.sid == seeder.session.sid
    again.state = State(True, True)
    again.session.want(True, wire.now)
    wire.run(10)
    assert again.session.peer_have == FULL
    assert again.session.usable
    before = wire.sent
    wire.run(100)
    assert wire.sent - before <= 45  # keep-alives only


def test_a_peer_that_never_says_what_it_has_is_asked_anew_ever_more_rarely():
    own, cpp = Own(FULL), CppPeer(PIECES, 0, sid=11)
    own.session.want(True, 0)
    wire = Wire(own.session, cpp)
    wire.run(1000)
    assert own.session.phase is Phase.OPEN
    assert cpp.peer_have == FULL


def test_a_session_that_nobody_needs_any_more_falls_silent():
    own, cpp = Own(FULL, want=False), CppPeer(PIECES, 0, sid=3)
    wire = Wire(own.session, cpp)
    wire.run(30)
    wire.right = CppPeer(PIECES, 0, sid=3)
    wire.right.next_ping = float("inf")
    wire.run(130)
    quiet = wire.sent
    wire.run(600)
    assert wire.sent == quiet


def test_keep_alives_are_sent_every_five_seconds_while_we_want_something():
    own, go = Own(), GoPeer(PIECES, FULL)
    own.session.want(True, 0)
    wire = Wire(own.session, go)
    wire.run(60)
    pings = [at for at, name, a in wire.log if name == "left" and isinstance(a, SendPing)]
    assert 11 <= len(pings) <= 16
    own.session.want(False, wire.now)
    count = len(wire.log)
    wire.run(60)
    later = [a for _, name, a in wire.log[count:] if name == "left" and isinstance(a, SendPing)]
    assert len(later) <= 1


def test_a_peer_that_does_not_answer_is_lost_and_tried_again_with_growing_pauses():
    own, go = Own(), GoPeer(PIECES, FULL)
    own.session.want(True, 0)
    wire = Wire(own.session, go, cut=True)
    wire.run(28)
    assert own.session.phase is Phase.LOST
    assert not own.session.usable
    wire.run(2000)
    pings = [at for at, _, a in wire.log if isinstance(a, SendPing)]
    assert max(b - a for a, b in itertools.pairwise(pings)) > 200
    wire.cut = False
    wire.run(320)
    assert own.session.usable


def test_a_lost_peer_that_speaks_is_back_at_once():
    own, cpp = Own(), CppPeer(PIECES, FULL, sid=3)
    own.session.want(True, 0)
    wire = Wire(own.session, cpp, cut=True)
    wire.run(600)
    assert own.session.phase is Phase.LOST
    wire.cut = False
    wire.run(17)
    assert own.session.usable


def test_updates_in_an_unknown_session_get_no_answer_but_a_ping():
    own = Own(FULL, want=False)
    assert not own.session.update_arrived(99, 1, UpdateState(State(True, True)), 0.0)
    assert own.session.due(0.0) == SendPing(5)


def test_bad_updates_are_refused_and_change_nothing():
    own = Own()
    own.session.ping_arrived(9, 0.0)
    bad = [
        UpdateInit(b"\x01", 8, State(True, True)),
        UpdateInit(bytes(12) + b"\x20", 0, State(True, True)),
        UpdateInit(b"\x01", 48_000, State(True, True)),
        UpdateHavePieces((3, PIECES)),
    ]
    for number, update in enumerate(bad):
        assert not own.session.update_arrived(9, number, update, 0.0)
    assert own.session.peer_have == 0
    assert own.session.peer_state is None


def test_while_the_size_of_a_bag_is_unknown_a_stranger_makes_us_keep_one_block_at_most():
    session = Session(5, NOW, lambda: 0, lambda: State(True, True), ROOM)
    session.ping_arrived(9, 0.0)
    assert session.update_arrived(9, 1, UpdateHavePieces((3, 47_999, 48_000, (1 << 25) - 1)), 0.0)
    assert session.update_arrived(9, 2, UpdateInit(b"\x01", 48_000 * 600, State(True, True)), 0.0)
    assert session.peer_have == 1 << 3 | 1 << 47_999
    session.pieces = 100
    assert session.peer_have == 1 << 3


def test_what_was_not_kept_before_the_size_was_known_is_told_again():
    pieces = 100_000
    seeder = Own((1 << pieces) - 1, pieces, want=False)
    reader = Session(7, NOW, lambda: 0, lambda: State(True, True), ROOM)
    reader.want(True, 0)
    wire = Wire(reader, seeder.session)
    wire.run(5)
    assert reader.peer_have == (1 << 48_000) - 1
    reader.pieces = pieces
    wire.run(8)
    assert reader.peer_have == seeder.have
    before = wire.sent
    wire.run(100)
    assert wire.sent - before <= 45  # keep-alives only


LARGE = 48_000 * 5
TOP = UpdateHavePieces((LARGE - 1,))
"""One piece, but a set with room for all those before it."""


def test_sets_of_pieces_have_room_together_and_the_largest_go_first():
    pool = Pool(5 * LARGE // 16)  # for two whole sets and a half
    large = [Own(pieces=LARGE, want=False, pool=pool) for _ in range(3)]
    for own in large:
        own.session.ping_arrived(9, 0.0)
        assert own.session.update_arrived(9, 1, TOP, 0.0), "answered, also when there was no room to keep it"
    assert [own.session.peer_have.bit_length() for own in large] == [LARGE, LARGE, 0]
    assert LARGE // 4 <= pool.used <= pool.limit
    assert not large[2].session.update_arrived(9, 1, UpdateHavePieces((LARGE,)), 0.0)
    small = [Own(pieces=48_000, want=False, pool=pool) for _ in range(2)]
    for own in small:
        own.session.ping_arrived(9, 0.0)
        own.session.update_arrived(9, 1, UpdateInit(b"\1" * 6000, 0, State(True, True)), 0.0)
    assert [own.session.peer_have.bit_length() for own in (*small, *large)] == [47_993, 47_993, 0, LARGE, 0]
    large[1].session.ping_arrived(77, 0.0)
    assert pool.used == 2 * (47_993 * 2 // 15), "a new id makes the room free"


def test_what_the_peer_was_told_costs_nothing_while_it_is_all_that_we_have():
    pool = Pool(LARGE)
    own = Own((1 << LARGE) - 1, LARGE, want=False, pool=pool)
    go = GoPeer(LARGE, 0, opens=True)
    wire = Wire(own.session, go)
    wire.run(20)
    assert own.session.phase is Phase.OPEN
    assert go.peer_have == own.have
    assert pool.used < 100
    own.have &= ~(1 << 5)  # it is damaged
    own.session.update_arrived(own.session.sid, 50, UpdateHavePieces((1,)), 20.0)
    assert LARGE // 8 < pool.used < LARGE // 7


def test_a_session_without_room_for_what_it_told_is_over():
    own = Own(1 << LARGE - 1, LARGE, want=False, pool=Pool(1000))
    wire = Wire(own.session, GoPeer(LARGE, 0, opens=True))
    wire.run(20)
    assert own.session.phase is Phase.OPEN
    assert own.session._snapshot == own.have
    own.have |= 1  # another piece came: what was told is no longer all that we have
    wire.run(2)
    assert own.session._snapshot is None


def test_old_cpp_offsets_in_bytes_are_understood():
    own = Own(pieces=100_000)
    own.session.ping_arrived(9, 0.0)
    assert own.session.update_arrived(9, 1, UpdateInit(b"\x01", 6000, State(True, True)), 0.0)
    assert own.session.peer_have == 1 << 48_000


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(["cpp", "go", "go opens", "own"]),
    want=st.booleans(),
    have=st.integers(0, FULL),
    theirs=st.integers(0, FULL),
    loss=st.sampled_from([0.0, 0.1, 0.3]),
    seed=st.integers(0, 10_000),
)
def test_every_pair_comes_to_an_understanding_in_spite_of_losses(kind, want, have, theirs, loss, seed):
    own = Own(have, want=want)
    peer: object
    if kind == "cpp":
        peer = CppPeer(PIECES, theirs, sid=seed)
    elif kind == "own":
        peer = Own(theirs, sid=seed).session
        peer.want(True, 0)
    else:
        peer = GoPeer(PIECES, theirs, opens=kind == "go opens")
    if want or kind == "go":
        own.session.want(True, 0)
    wire = Wire(own.session, peer, loss=loss, seed=seed)
    wire.run(200)
    wire.loss = 0.0
    wire.run(60)
    assert own.session.peer_have == theirs
    assert peer.peer_have == have
    assert own.session.phase is Phase.OPEN


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 4), st.integers(0, 3)), max_size=60))
def test_no_order_of_events_breaks_the_session_or_makes_it_spin(events):
    own = Own(0b11)
    session, now, flying = own.session, 0.0, []
    for kind, number, pause in events:
        now += pause
        match kind:
            case 0:
                session.ping_arrived(number, now)
            case 1:
                session.update_arrived(number, number, UpdateState(State(True, bool(number))), now)
            case 2:
                session.update_arrived(number, number, UpdateInit(bytes([number]), 0, State(True, False)), now)
            case 3:
                session.want(bool(number), now)
            case 4:
                session.query_arrived(now)
            case 5 | 6 if flying:
                session.finished(flying.pop(), kind == 5, now)
            case 7:
                own.have |= 1 << number
            case 8:
                own.state = State(True, bool(number))
        action = session.due(now)
        if action is not None:
            assert not flying, "one message at a time"
            flying.append(action)
        elif not flying:
            assert session.wake_at() > now


@given(st.sets(st.integers(0, 5000)), st.integers(0, 50))
def test_masks_and_numbers_are_inverse(pieces, limit):
    mask = mask_of(pieces)
    assert mask == sum(1 << piece for piece in pieces)
    assert numbers(mask, limit) == sorted(pieces)[:limit]
    assert numbers(mask, len(pieces)) == sorted(pieces)


def test_the_table_only_leaves_lost_by_a_reason():
    assert advance(Phase.LOST, Event.PONG) is Phase.LOST
    assert advance(Phase.OPEN, Event.PONG) is Phase.OPEN
    assert advance(Phase.LOST, Event.SPOKE) is Phase.HELLO
