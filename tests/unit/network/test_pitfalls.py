"""The reference's list of pitfalls (protocol 7.1): those that no other test here holds, by their number.

Elsewhere: 1-3, 5, 28 test_vectors, test_create; 4 test_info_header; 6, 22 test_boc, test_tree, test_info_header;
7, 8 test_dht_types; 9 test_keys; 10-12, 20 test_adnl_peer; 13, 14 test_rldp; 15, 21, 27 test_foreign_peers;
16, 17, 31 test_storage_session; 23 test_rldp, test_storage_tl; 25 test_address, test_global_config; 26 test_storage_tl;
29 test_storage_node.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from tests.unit.network.swarm_kit import World
from tonfs.bagfiles import StoredBag
from tonfs.network import acquaintances, dht_client, overlay, rldp2, tl
from tonfs.network.fec import SYMBOL
from tonfs.network.peer_process import PeerOptions, run_peer


@pytest.fixture
async def world(nursery: trio.Nursery, tmp_path: Path) -> World:
    return World(nursery, tmp_path)


def test_18_membership_is_signed_anew_long_before_600_seconds() -> None:
    assert dht_client.OVERLAY_EVERY <= 100
    assert dht_client.TTL <= 3660


def test_18_the_hello_after_a_restart_is_something_that_every_daemon_parses() -> None:
    """tonutils-storage drops a whole packet for one query that it does not know, and it does not know overlay.ping."""
    _, query = overlay.unwrap(acquaintances._HELLO)
    assert tl.constructor_id(query) == tl.OVERLAY_GET_RANDOM_PEERS


async def test_19_a_node_without_an_address_that_others_can_use_announces_none(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced: list[str] = []
    monkeypatch.setattr(dht_client.DhtClient, "announce_address", lambda self, *words: announced.append("address"))
    config = tmp_path / "config"
    config.write_text('{"dht": {"static_nodes": {"nodes": []}}}', encoding="ascii")
    for listen, expected in (("0.0.0.0", []), ("127.0.0.1", ["address"])):
        options = PeerOptions(tmp_path / f"{listen}.sock", tmp_path / f"{listen}.key", config, listen=(listen, 0))
        async with trio.open_nursery() as life:
            await life.start(run_peer, options)
            life.cancel_scope.cancel()
        assert announced == expected


async def test_24_one_peer_serves_many_bags_over_one_connection(world: World, autojump_clock: object) -> None:
    seeder, reader = await world.host("seeder"), await world.host("reader")
    bags = [world.make_bag(20, seed) for seed in (1, 2, 3)]
    for number, bag in enumerate(bags):
        StoredBag.keep(seeder.directory / str(number), bag)
        await seeder.node.seed(bag.info.bag_id, seeder.directory / str(number))
    async with trio.open_nursery() as together:
        for number, bag in enumerate(bags):
            into = reader.directory / str(number)

            async def fetch(bag_id=bag.info.bag_id, into=into, pieces=bag.info.pieces) -> None:
                assert (await reader.node.fetch(bag_id, into, None, timeout=60)).have == pieces

            together.start_soon(fetch)
    for bag in bags:
        assert [peer.id for peer in reader.node.peers(bag.info.bag_id)] == [seeder.id]


def test_30_a_symbol_is_never_sent_again_a_fresh_one_goes_instead() -> None:
    data = random.Random(1).randbytes(100 * SYMBOL)
    sender = rldp2.PartSender(b"\5" * 32, 0, len(data), data)
    numbers: list[int] = []
    for _ in range(6):
        for train in sender.emit(40):
            numbers += [int.from_bytes(message[64:68], "little") for message in train.messages()]
        received = numbers[::3]  # two thirds are lost
        mask = sum(1 << (received[-1] - n) for n in received if received[-1] - n < 32)
        sender.on_confirm(received[-1] + 1, len(received))
        assert mask & 1
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 100
