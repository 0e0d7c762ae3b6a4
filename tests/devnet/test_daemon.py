"""The devnet's life: control socket and command line, restarts, kill -9, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.devnet.conftest import Devnet, alive
from tonfs.clock import SystemClock
from tonfs.control import call_sync
from tonfs.errors import UsageError
from tonfs.network.dht_client import DhtClient
from tonfs.network.global_config import load_global_config
from tonfs.network.keys import KeyPair
from tonfs.network.node import AdnlNode

pytestmark = pytest.mark.devnet
ADDRESS = "0:" + "ab" * 32
RENT = 1000
"""nanoTON that an account without code may pay for its place in a second or so."""
FAKE = Path(__file__).parents[1] / "fakes"


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def test_status_has_the_keys_that_others_rely_on(devnet: Devnet) -> None:
    value = devnet.json("status")
    assert value["global_config"] == str(devnet.state / "global.config.json")
    assert value["lite_server"].startswith("127.0.0.1:")
    assert value["dht"].startswith("127.0.0.1:")
    assert value["providers"] == []
    assert value["seqno"] >= 1
    assert value["time"].endswith("Z")
    assert value["coins"]["ok"] is True
    assert value["ready"] is True
    text = devnet.run("status").stdout
    assert value["lite_server"] in text
    assert "add up" in text


def test_the_faucet_takes_every_form_of_an_address(devnet: Devnet) -> None:
    first = devnet.json("faucet", ADDRESS, "1")
    second = devnet.json("faucet", first["address"], "500000000n")
    assert second["address"] == first["address"]
    assert second["balance"] == pytest.approx(1_500_000_000, abs=RENT)
    devnet.run("faucet", "EQ" + first["address"][2:], "1", code=2)  # the checksum is that of the other form
    assert "UQ" in devnet.run("faucet", ADDRESS, "0.5 TON").stdout
    devnet.run("faucet", "nonsense", "1", code=2)
    devnet.run("faucet", ADDRESS, "much", code=2)
    coins = devnet.json("status")["coins"]
    assert coins["ok"] is True
    assert coins["issued"] >= 2_000_000_000


def test_time_moves_forward_only(devnet: Devnet) -> None:
    before = devnet.json("time")
    after = devnet.json("time", "--advance", "30d")
    assert after["time"] > before["time"]
    start = time.strptime(before["time"], "%Y-%m-%dT%H:%M:%SZ")
    end = time.strptime(after["time"], "%Y-%m-%dT%H:%M:%SZ")
    assert time.mktime(end) - time.mktime(start) >= 30 * 86400
    with pytest.raises(UsageError):
        call_sync(devnet.state / "control.sock", "advance", {"seconds": -5}, who="devnet")
    devnet.run("time", "--advance", "soon", code=2)


def test_a_message_is_traced_and_transactions_listed(devnet: Devnet) -> None:
    given = devnet.json("faucet", "0:" + "cd" * 32, "2")
    (step,) = devnet.json("trace", given["message"])["steps"]
    assert step["message"] == given["message"]
    assert step["transaction"]["value"] == 2_000_000_000
    assert step["transaction"]["seqno"] == given["seqno"]
    assert "2.00 TON" in devnet.run("trace", given["message"]).stdout
    devnet.run("trace", "00" * 32, code=3)
    devnet.run("trace", "xyz", code=2)
    params = {"address": "0:" + "cd" * 32}
    (row,) = call_sync(devnet.state / "control.sock", "transactions", params, who="devnet")["transactions"]
    assert row["hash"] == step["transaction"]["hash"]
    assert row["account"] == "0:" + "cd" * 32


def test_snapshots_set_the_chain_back(devnet: Devnet) -> None:
    address = "0:" + "ef" * 32
    devnet.json("faucet", address, "1")
    saved = devnet.json("snapshot", "save", "one")
    devnet.json("faucet", address, "1")
    assert devnet.json("snapshot", "list")["snapshots"] == ["one"]
    restored = devnet.json("snapshot", "restore", "one")
    assert restored["seqno"] == saved["seqno"]
    balance = call_sync(devnet.state / "control.sock", "balance", {"address": address}, who="devnet")
    assert balance["balance"] == pytest.approx(1_000_000_000, abs=RENT)
    devnet.run("snapshot", "restore", "other", code=3)
    devnet.run("snapshot", "save", code=2)


def test_unknown_providers_and_methods_are_errors(devnet: Devnet) -> None:
    devnet.run("fault", "1", "silent", code=3)
    devnet.run("fault", "1", "lazy", code=2)
    with pytest.raises(UsageError):
        call_sync(devnet.state / "control.sock", "mint", {}, who="devnet")


def test_a_second_one_in_the_same_directory_is_refused(devnet: Devnet) -> None:
    for words in (("up", "--detach"), ("up",)):
        done = devnet.run(*words, code=1)
        assert "already runs" in done.stderr
        assert "TF0008" in done.stderr


async def test_the_dht_node_of_the_config_keeps_an_address(devnet: Devnet) -> None:
    (node,) = load_global_config(devnet.state / "global.config.json").dht_nodes
    assert node.check()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            ours = AdnlNode(("127.0.0.1", 0), clock=SystemClock(), announce_ip="127.0.0.1")
            key = KeyPair.generate()
            endpoint = ours.add_identity(key)
            await nursery.start(ours.run)
            client = DhtClient(endpoint, [node], SystemClock())
            nursery.start_soon(client.run)
            await client.publish_address()
            found = await DhtClient(endpoint, [node], SystemClock()).find_address(endpoint.id)
            assert found is not None
            assert bytes(found[0]) == key.public_key
            assert found[1] == endpoint.address
            nursery.cancel_scope.cancel()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Devnet]:
    """A devnet that the test starts itself; a process that is left over is ended."""
    net = Devnet(tmp_path / "state")
    yield net
    if (net.state / "devnet.pid").exists():
        subprocess.run(
            [sys.executable, "-m", "tonfs", "devnet", "down", "--state", str(net.state)],
            check=False,
            capture_output=True,
        )


def _ports(status: dict[str, Any]) -> tuple[str, str]:
    return status["lite_server"], status["dht"]


def test_a_restart_keeps_state_keys_and_ports(own: Devnet) -> None:
    own.up()
    given = own.json("faucet", ADDRESS, "7")
    own.json("time", "--advance", "1d")
    before, config = own.json("status"), own.config
    own.down()
    assert not alive(before["pid"])
    host, port = before["lite_server"].split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=5)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", int(before["dht"].split(":")[1])))
    own.run("status", code=4)
    own.run("down", code=4)
    own.up()
    after = own.json("status")
    assert _ports(after) == _ports(before)
    assert after["seqno"] >= before["seqno"]
    assert after["time"] >= before["time"]
    assert own.config["validator"] == config["validator"]
    assert own.config["liteservers"] == config["liteservers"]
    assert own.config["dht"]["static_nodes"]["nodes"][0]["id"] == config["dht"]["static_nodes"]["nodes"][0]["id"]
    balance = call_sync(own.state / "control.sock", "balance", {"address": ADDRESS}, who="devnet")["balance"]
    assert balance == given["balance"]


def test_kill_9_loses_no_block(own: Devnet) -> None:
    own.up()
    for _ in range(3):
        given = own.json("faucet", ADDRESS, "1")
    pid = own.json("status")["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid))
    own.up()
    assert own.json("status")["seqno"] >= given["seqno"]
    balance = call_sync(own.state / "control.sock", "balance", {"address": ADDRESS}, who="devnet")["balance"]
    assert balance == pytest.approx(3_000_000_000, abs=RENT)
    assert own.json("trace", given["message"])["steps"][0]["transaction"]["seqno"] == given["seqno"]


def test_in_the_foreground_it_stops_on_ctrl_c(own: Devnet) -> None:
    argv = [sys.executable, "-m", "tonfs", "devnet", "up", "--state", str(own.state), "--providers", "0"]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        lines = [process.stderr.readline(), process.stderr.readline()]
        assert "lite server 127.0.0.1:" in lines[1]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.stderr.close()
    assert not (own.state / "control.sock").exists()


@pytest.fixture
def with_fakes(tmp_path: Path) -> Iterator[tuple[Devnet, subprocess.Popen[str]]]:
    """A devnet process of its own whose three providers are stand-ins."""
    state = tmp_path / "state"
    process = subprocess.Popen([sys.executable, str(FAKE / "devnet_process.py"), str(state), "3"], text=True)
    net = Devnet(state)
    until(lambda: (state / "control.sock").exists() or process.poll() is not None)
    until(lambda: bool(net.json("status")["ready"]))
    yield net, process
    process.kill()
    process.wait()


def test_providers_are_funded_listed_broken_and_mended(with_fakes: tuple[Devnet, Any]) -> None:
    net, _ = with_fakes
    providers = net.json("status")["providers"]
    assert [p["number"] for p in providers] == [1, 2, 3]
    assert len({p["key"] for p in providers} | {p["address"] for p in providers} | {p["port"] for p in providers}) == 9
    assert len({p["rate"] for p in providers}) == 3
    until(lambda: _funded(net, providers))
    assert net.json("fault", "2", "slow")["fault"] == "slow"
    assert net.json("fault", providers[2]["key"][:10], "vanish")["fault"] == "vanish"
    until(lambda: [p["pid"] is None for p in net.json("status")["providers"]] == [False, False, True])
    assert json.loads((net.state / "devnet.json").read_text())["providers"][1]["fault"] == "slow"
    net.run("fault", "3", "none")
    until(lambda: all(p["phase"] == "running" for p in net.json("status")["providers"]))


def _funded(net: Devnet, providers: list[dict[str, Any]]) -> bool:
    ask = net.state / "control.sock"
    return all(
        call_sync(ask, "balance", {"address": p["address"]}, who="devnet")["balance"] == 100 * 10**9 for p in providers
    )


@pytest.mark.parametrize("how", ["down", "kill"])
def test_no_provider_outlives_the_devnet(with_fakes: tuple[Devnet, Any], how: str) -> None:
    net, process = with_fakes
    pids = [p["pid"] for p in net.json("status")["providers"]]
    assert all(alive(pid) for pid in pids)
    if how == "down":
        net.down()
    else:
        process.kill()
    process.wait()
    until(lambda: not any(alive(pid) for pid in pids))
