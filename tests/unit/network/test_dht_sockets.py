"""The DHT over real ADNL packets on loopback: the fake network must not have hidden anything."""

from __future__ import annotations

import trio

from tonfs.clock import SystemClock
from tonfs.ids import BagId, ProviderKey
from tonfs.network.api import AdnlEndpoint
from tonfs.network.dht_client import DhtClient
from tonfs.network.dht_server import DhtServer
from tonfs.network.dht_types import overlay_key
from tonfs.network.keys import KeyPair
from tonfs.network.node import AdnlNode
from tonfs.network.overlay import sign_node

CLOCK = SystemClock()
BAG = BagId(b"\x22" * 32)


async def start(nursery: trio.Nursery) -> AdnlEndpoint:
    node = AdnlNode(("127.0.0.1", 0), clock=CLOCK)
    endpoint = node.add_identity(KeyPair.generate())
    await nursery.start(node.run)
    return endpoint


async def test_records_cross_real_sockets_and_a_second_server_joins():
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            first = DhtServer(await start(nursery), CLOCK)
            await nursery.start(first.run)
            second = DhtServer(await start(nursery), CLOCK, [first.node_entry()])
            await nursery.start(second.run)
            await second.client.find_nearest(bytes(32))
            endpoints = [await start(nursery) for _ in range(7)]
            writers = [DhtClient(endpoint, [first.node_entry()], CLOCK) for endpoint in endpoints]
            for endpoint, dht in zip(endpoints, writers, strict=True):
                assert await dht.publish_address() == 2
                node = sign_node(endpoint.public_key, endpoint.sign, overlay_key(BAG).owner_id, int(CLOCK.now()))
                assert await dht.publish_overlay(BAG, node) == 2
            provider = KeyPair.generate()
            await writers[0].publish_provider(provider, endpoints[0].id)
            reader = DhtClient(await start(nursery), [second.node_entry()], CLOCK)
            for endpoint in endpoints:
                assert await reader.find_address(endpoint.id) == (endpoint.public_key, endpoint.address)
            assert await reader.find_provider(ProviderKey(provider.public_key)) == endpoints[0].id
            members = await reader.find_overlay_nodes(BAG)
            assert len(members) == 5, "as many as fit a record"
            assert {member.id for member in members} <= {endpoint.id for endpoint in endpoints}
            nursery.cancel_scope.cancel()
