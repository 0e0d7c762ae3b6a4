"""The devnet with real provider processes: found through the DHT, asked, broken, mended, gone when it goes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.devnet.conftest import Devnet, alive
from tonfs.clock import SystemClock
from tonfs.control import call_sync
from tonfs.errors import TonfsError
from tonfs.ids import provider_key
from tonfs.network.api import Rates
from tonfs.network.dht_client import DhtClient
from tonfs.network.global_config import load_global_config
from tonfs.network.keys import KeyPair
from tonfs.network.node import AdnlNode
from tonfs.network.provider_link import ProviderLink

pytestmark = pytest.mark.devnet
MARKET = "0:" + "77" * 32
MB = 1 << 20


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    """Two providers, blocks as fast as on a real devnet."""
    net = Devnet(tmp_path_factory.mktemp("market"))
    net.run("up", "--providers", "2", "--detach", timeout=150)
    yield net
    pids = [p["pid"] for p in net.json("status")["providers"]]
    net.down()
    assert not any(alive(pid) for pid in pids if pid)


@asynccontextmanager
async def link(net: Devnet) -> AsyncIterator[ProviderLink]:
    config = load_global_config(net.state / "global.config.json")
    with trio.fail_after(90):
        async with trio.open_nursery() as nursery:
            node = AdnlNode(("127.0.0.1", 0), clock=SystemClock(), announce_ip="127.0.0.1")
            endpoint = node.add_identity(KeyPair.generate())
            await nursery.start(node.run)
            dht = DhtClient(endpoint, config.dht_nodes, SystemClock(), k=config.k, a=config.a)
            await nursery.start(dht.run)
            yield ProviderLink(endpoint, dht)
            nursery.cancel_scope.cancel()


async def rates(net: Devnet, key: str, tries: int = 10) -> Rates:
    """A fresh process publishes itself a moment after its socket answers. Raises PeerTimeout, PeerUnreachable."""
    failure: TonfsError | None = None
    async with link(net) as providers:
        for _ in range(tries):
            try:
                return await providers.provider_rates(provider_key(key), MB, timeout=3.0)
            except TonfsError as exc:
                failure = exc
            await trio.sleep(0.2)
    assert failure is not None
    raise failure


def until(condition: Callable[[], Any], seconds: float = 40.0) -> Any:
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)
    return value


def test_they_are_up_when_up_returns_and_register_on_the_chain(market: Devnet) -> None:
    providers = market.json("status")["providers"]
    assert [p["phase"] for p in providers] == ["running", "running"]

    def comments() -> set[str]:
        rows = call_sync(market.state / "control.sock", "transactions", {"address": MARKET}, who="devnet")
        return {row["comment"] for row in rows["transactions"]}

    until(lambda: comments() == {f"tsp-{p['key']}" for p in providers})


async def test_they_answer_with_their_own_price(market: Devnet) -> None:
    for provider in market.json("status")["providers"]:
        answer = await rates(market, provider["key"])
        assert answer.available
        assert answer.rate_per_mb_day == provider["rate"]
        assert (answer.min_span, answer.max_span) == (60, 30 * 86400)
        assert answer.space_available >= MB


async def test_faults_are_felt_and_end(market: Devnet) -> None:
    one, two = market.json("status")["providers"]
    market.run("fault", "1", "silent")
    with pytest.raises(TonfsError):
        await rates(market, one["key"], tries=1)
    assert (await rates(market, two["key"])).available
    market.run("fault", "1", "none")
    assert (await rates(market, one["key"])).available
    market.run("fault", "2", "vanish")
    until(lambda: not alive(two["pid"]))
    with pytest.raises(TonfsError):
        await rates(market, two["key"], tries=1)
    market.run("fault", "2", "none")
    until(lambda: market.json("status")["providers"][1]["phase"] == "running")
    assert (await rates(market, two["key"])).available


async def test_a_killed_one_comes_back_at_the_same_address(market: Devnet) -> None:
    before = market.json("status")["providers"][0]
    os.kill(before["pid"], signal.SIGKILL)
    until(lambda: market.json("status")["providers"][0]["restarts"] == before["restarts"] + 1)
    until(lambda: market.json("status")["providers"][0]["phase"] == "running")
    after = market.json("status")["providers"][0]
    assert after["pid"] != before["pid"]
    assert (after["port"], after["key"], after["address"]) == (before["port"], before["key"], before["address"])
    assert (await rates(market, after["key"])).available
