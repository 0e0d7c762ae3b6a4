from __future__ import annotations

import random

from tonfs.network.address import AddressList
from tonfs.network.dht_table import BUCKET_SIZE, MAX_FAILURES, Lookup, RoutingTable, distance
from tonfs.network.dht_types import DhtNode
from tonfs.network.keys import KeyPair

ADDRESSES = AddressList((("127.0.0.1", 1),), 1, 1)


def node(number: int, version: int = 1) -> DhtNode:
    key = KeyPair.from_seed(number.to_bytes(32, "big"))
    return DhtNode.unverified(key.public_key, ADDRESSES, version, b"")


NODES = [node(i) for i in range(200)]
OWN = bytes(32)


def test_nearest_is_by_xor_distance():
    table = RoutingTable(OWN, NODES)
    key = random.Random(1).randbytes(32)
    found = table.nearest(key, 7)
    assert found == sorted(NODES, key=lambda n: distance(n.id, key))[:7]


def test_a_bucket_is_bounded_and_takes_newcomers_only_for_failed_nodes():
    table = RoutingTable(OWN)
    far = [n for n in NODES if n.id[0] >= 128]
    assert len(far) > BUCKET_SIZE + 2
    taken = far[:BUCKET_SIZE]
    assert all(table.add(n) for n in taken)
    assert not table.add(far[BUCKET_SIZE])
    for _ in range(MAX_FAILURES):
        table.failed(taken[3].id)
    assert table.add(far[BUCKET_SIZE])
    assert taken[3].id not in table
    assert len(table) == BUCKET_SIZE


def test_static_nodes_stay_and_we_are_never_in_our_own_table():
    static = NODES[0]
    table = RoutingTable(static.id, [static, NODES[1]])
    assert len(table) == 1
    assert not table.add(static)
    for _ in range(9):
        table.failed(NODES[1].id)
    assert table.nearest(OWN, 3) == [NODES[1]], "better a failing node than none"


def test_a_newer_version_replaces_an_older_one():
    table = RoutingTable(OWN, [node(1)])
    table.add(node(1, version=5))
    table.add(node(1, version=3))
    assert [n.version for n in table.nodes()] == [5]


def test_only_nodes_that_answered_count_as_closer():
    table = RoutingTable(b"\xff" * 32, NODES)
    assert table.closer_than_us(OWN, 50) == 0
    for n in NODES:
        table.answered(n.id)
    assert table.closer_than_us(OWN, 50) == 50
    assert table.closer_than_us(OWN, 1000) == len(NODES)


def run_lookup(lookup: Lookup, world: dict[bytes, list[DhtNode]], dead: set[bytes]) -> int:
    asked = 0
    while not lookup.done:
        batch = lookup.take()
        assert batch, "not done, and nothing to ask"
        for n in batch:
            asked += 1
            if n.id in dead:
                lookup.failed(n.id)
            else:
                lookup.answered(n.id, world[n.id])
    return asked


def test_a_lookup_finds_the_true_nearest_nodes_in_few_questions():
    rng = random.Random(5)
    key = rng.randbytes(32)
    world = {n.id: sorted(rng.sample(NODES, 60), key=lambda m: distance(m.id, key))[:10] for n in NODES}
    lookup = Lookup(key, NODES[:3], width=6, parallel=3)
    asked = run_lookup(lookup, world, dead=set())
    assert lookup.result() == sorted(NODES, key=lambda m: distance(m.id, key))[:6]
    assert asked < 40


def test_dead_nodes_are_passed_over():
    rng = random.Random(6)
    key = rng.randbytes(32)
    nearest = sorted(NODES, key=lambda m: distance(m.id, key))
    world = {n.id: nearest[:10] for n in NODES}
    dead = {n.id for n in nearest[:4]}
    lookup = Lookup(key, NODES[:5], width=6, parallel=3)
    run_lookup(lookup, world, dead)
    assert lookup.result()[:6] == nearest[4:10]
    assert lookup.answers >= 6


def test_a_lookup_that_is_fed_endless_new_nodes_ends():
    key = OWN
    lookup = Lookup(key, NODES[:1], width=6, parallel=3, max_queries=20)
    asked = 0
    while not lookup.done:
        for n in lookup.take():
            asked += 1
            lookup.answered(n.id, [node(1000 + 10 * asked + i) for i in range(8)])
    assert asked <= 20


def test_a_lookup_without_seeds_is_done_at_once():
    lookup = Lookup(OWN, [], width=6, parallel=3)
    assert lookup.done
    assert lookup.answers == 0
    assert lookup.result() == []


def test_no_more_than_parallel_questions_are_in_the_air():
    lookup = Lookup(OWN, NODES, width=6, parallel=3)
    assert len(lookup.take()) == 3
    assert lookup.take() == []
    assert not lookup.done
