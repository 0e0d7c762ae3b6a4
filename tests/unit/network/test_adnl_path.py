"""Where a peer is: whoever repeats, delays or invents packets does not turn our answers on somebody else."""

from __future__ import annotations

import pytest

from tests.fakes.simnet import SimNet, SimNode
from tonfs.network import adnl_packet as wire
from tonfs.network import adnl_path
from tonfs.network.adnl_hub import Pair
from tonfs.network.adnl_path import Path
from tonfs.network.api import UdpAddress

VICTIM = ("10.6.6.6", 666)
ELSEWHERE = ("10.0.0.1", 9999)
BIG = 3 << 20


def met(net: SimNet) -> tuple[SimNode, SimNode]:
    """A reader and a server with a channel between them."""
    reader, server = net.node(1), net.node(2)
    server.handler = lambda data: bytes(BIG) if data == b"big" else b"re:" + data
    assert net.ask(reader, server, b"1") is not None
    net.run(0.5)
    assert pair_at(server, reader).peer.ready
    return reader, server


def pair_at(node: SimNode, other: SimNode) -> Pair:
    pair = node.local.remotes[other.key.short_id].pair
    assert pair is not None
    return pair


def move(net: SimNet, node: SimNode, address: UdpAddress) -> None:
    """A router gives the node another address; the old one is nobody's."""
    del net.nodes[node.address]
    node.address = address
    net.nodes[address] = node


def count_bytes(net: SimNet, target: UdpAddress) -> list[int]:
    found: list[int] = []
    net.on_wire = lambda datagram, source, to: found.append(len(datagram)) if to == target else None
    return found


@pytest.mark.parametrize("loss", [0.0, 0.1])
@pytest.mark.parametrize("who", ["reader", "server"])
def test_a_router_that_changes_an_address_in_the_middle_costs_a_moment(who: str, loss: float) -> None:
    net = SimNet(delay=0.02, loss=loss, rate=4000)
    reader, server = met(net)
    answers: list[bytes] = []
    pair_at(reader, server).rldp.query(b"big", BIG, 60, answers.append, net.time)
    reader.hub.touch(pair_at(reader, server))
    net.run(0.5)
    mover, other = (reader, server) if who == "reader" else (server, reader)
    move(net, mover, ELSEWHERE)
    start = net.time
    assert net.run(20, lambda: bool(answers))
    assert len(answers[0]) == BIG
    assert net.time - start < 5
    assert pair_at(other, mover).peer.path.address == ELSEWHERE
    assert pair_at(other, mover).peer.ready


def test_packets_that_come_from_an_invented_address_do_not_move_a_peer() -> None:
    """Whoever stands between makes all the reader's packets look like the victim's; the reader itself gets ours."""
    net = SimNet(delay=0.02)
    reader, server = met(net)
    home, path = reader.address, pair_at(server, reader).peer.path
    hits = count_bytes(net, VICTIM)
    reader.address = VICTIM
    answers: list[bytes] = []
    pair_at(reader, server).rldp.query(b"big", BIG, 60, answers.append, net.time)
    reader.hub.touch(pair_at(reader, server))
    assert net.run(20, lambda: bool(answers))
    net.run(5)
    assert (path.address, path.proven) == (home, True)
    assert hits
    assert sum(hits) < 10_000


def test_a_peer_that_guesses_what_went_to_an_address_does_not_get_us_there() -> None:
    net = SimNet()
    reader, server = met(net)
    home, peer = reader.address, pair_at(server, reader).peer
    ours = peer._lane
    reader.address = VICTIM
    liar = pair_at(reader, server).peer
    channel = liar.channel
    assert channel is not None
    for number in range(40):
        guess = min(ours.out_seqno + 1, max(ours.out_seqno, ours.promised)) if number % 2 else ours.promised // 2
        plain = wire.build_contents([wire.pack_message(wire.Nop())], seqno=liar._lane.next_seqno(), confirm_seqno=guess)
        server.hub.receive(channel.seal(plain), VICTIM, net.time)
        net.run(0.1)
    assert peer.path.address == home


def test_the_first_packet_through_the_channel_speaks_for_where_the_key_went() -> None:
    net = SimNet()
    reader, server = net.node(1), net.node(2)
    server.handler = lambda data: b"re:" + data
    home = reader.address
    answers: list[bytes] = []
    reader.pair(server).peer.query(bytes(32), b"1", answers.append, net.time)
    reader.hub.touch(reader.pair(server))
    assert net.run(1, lambda: bool(answers))
    path = pair_at(server, reader).peer.path
    assert (path.address, path.proven) == (home, False)
    reader.address = VICTIM
    net.run(1)
    assert (path.address, path.proven) == (home, True)


def test_a_peer_whose_key_went_to_two_addresses_gets_no_bulk_till_it_answers_from_one() -> None:
    net = SimNet()
    reader, server = net.node(1), net.node(2)
    server.handler = lambda data: bytes(BIG) if data == b"big" else None
    home = reader.address
    net.nodes[VICTIM] = reader  # the victim's packets never arrive
    hits = count_bytes(net, VICTIM)
    sent: list[int] = []
    for address in (VICTIM, home):
        reader.address = address
        reader.pair(server).peer.query(bytes(31) + bytes([len(sent)]), b"x", lambda _: None, net.time)
        reader.hub.touch(reader.pair(server))
        sent.append(len(reader.pair(server).peer.outbox[0].data))
        net.run(0.01)
    del net.nodes[VICTIM]
    path = pair_at(server, reader).peer.path
    assert net.run(1, lambda: path.proven)
    assert path.address == home
    reader.address = home
    assert net.ask_rldp(reader, server, b"big") == bytes(BIG)
    assert sum(hits) <= adnl_path.CREDIT * sum(sent)


def test_few_addresses_are_challenged_at_once() -> None:
    path = Path()
    path.call_at(ELSEWHERE)
    path.key_sent()
    path.key_used()
    assert path.proven
    challenged = [path.challenge((f"10.1.1.{n}", 1), 5, 10, 0.0) for n in range(20)]
    assert sum(number > 10 for number in challenged) == adnl_path.CANDIDATES
    assert path.challenge(("10.1.1.9", 1), 5, 10, adnl_path.CANDIDATE_LIFE + 1) > 10, "room is made by time"


def test_a_challenge_that_was_lost_is_sent_again_with_its_number() -> None:
    path = Path()
    number = path.challenge(ELSEWHERE, 0, 10, 0.0)
    assert path.challenge(ELSEWHERE, 0, 10, 0.1) == 0
    assert path.challenge(ELSEWHERE, 0, 10, 0.3) == number
    assert path.challenge(ELSEWHERE, 0, number + 5, 0.6) > number + 5
    assert path.challenge(ELSEWHERE, number, number + 5, 0.6) == 0
    assert not path.proven, "a number that was replaced proves nothing"


def test_a_server_that_restarted_elsewhere_is_found_by_its_first_packet() -> None:
    net = SimNet()
    reader, server = met(net)
    net.run(3)
    del net.nodes[reader.address]
    again = net.node(1, port=9999)
    assert net.ask(again, server, b"2") == b"re:2"
    net.run(0.5)
    assert pair_at(server, again).peer.path.address == ELSEWHERE
    assert pair_at(server, again).peer.ready
