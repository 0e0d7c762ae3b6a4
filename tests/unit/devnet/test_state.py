"""State directory and global config of a devnet."""

from __future__ import annotations

import base64
import json
import random
import socket
from pathlib import Path

import pytest

from tests.fakes.lite import block_id
from tonfs.devnet.config_file import global_config, write_config
from tonfs.devnet.state import DevnetState, PortChooser, ProviderState, StateDir, plan, rate_of
from tonfs.errors import Busy, Damaged, UsageError
from tonfs.network.address import AddressList
from tonfs.network.dht_types import DhtNode
from tonfs.network.keys import KeyPair, verify


def test_a_plan_keeps_what_was_chosen_and_adds_what_is_missing(tmp_path: Path) -> None:
    directory = StateDir(tmp_path / "s")
    directory.create()
    assert directory.load() is None
    first = plan(None, None, PortChooser())
    assert len(first.providers) == 7
    ports = [first.lite_port, first.dht_port, *(p.port for p in first.providers)]
    assert len(set(ports)) == 9
    directory.save(first)
    assert directory.load() == first
    assert plan(first, None, PortChooser()) == first
    more = plan(first, 9, PortChooser())
    assert more.providers[:7] == first.providers
    assert len(more.providers) == 9
    assert plan(first, 0, PortChooser()).providers == ()


def test_a_port_that_somebody_took_is_chosen_anew() -> None:
    old = plan(None, 1, PortChooser())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", old.providers[0].port))
        new = plan(old, None, PortChooser())
    assert new.providers[0].port != old.providers[0].port
    assert (new.lite_port, new.dht_port) == (old.lite_port, old.dht_port)


def test_the_chooser_gives_no_port_twice() -> None:
    chooser = PortChooser(random.Random(1))
    ports = [chooser.choose() for _ in range(50)]
    assert len(set(ports)) == 50
    assert chooser.keep(ports[0]) not in ports


def test_prices_differ_and_stay_in_their_range() -> None:
    rates = [rate_of(n) for n in range(1, 10)]
    assert len(set(rates)) == 9
    assert min(rates) == 60_000
    assert max(rates) == 140_000


def test_a_state_directory_is_held_by_one(tmp_path: Path) -> None:
    directory = StateDir(tmp_path)
    assert not directory.held()
    with directory.lock():
        assert directory.held()
        with pytest.raises(Busy, match="already runs"), StateDir(tmp_path).lock():
            pass
    assert not directory.held()
    with directory.lock():
        pass


def test_a_spoiled_state_file_is_damaged(tmp_path: Path) -> None:
    directory = StateDir(tmp_path)
    for text in ("", "[]", '{"schema": "other"}', '{"schema": "tonfs.devnet-state/1", "providers": [1]}'):
        (tmp_path / "devnet.json").write_text(text)
        with pytest.raises(Damaged):
            directory.load()
    directory.save(DevnetState(1, 2, (ProviderState(1, 3, 4, "silent"),)))
    assert directory.load() == DevnetState(1, 2, (ProviderState(1, 3, 4, "silent"),))


def test_a_directory_that_cannot_be_made_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot be made"):
        StateDir(tmp_path / "file" / "state").create()


def test_the_config_is_what_stock_software_loads(tmp_path: Path) -> None:
    key = KeyPair.from_seed(b"\x01" * 32)
    node = DhtNode.create(key, AddressList((("127.0.0.1", 4400),), 7, 7), 99)
    path = tmp_path / "global.config.json"
    write_config(
        path,
        global_config(dht_nodes=[node], lite_server=("127.0.0.1", 4443), lite_key=b"\x02" * 32, zero_state=block_id(0)),
    )
    config = json.loads(path.read_text())
    assert config["@type"] == "config.global"
    assert config["liteservers"] == [
        {
            "ip": 2130706433,
            "port": 4443,
            "id": {"@type": "pub.ed25519", "key": base64.b64encode(b"\x02" * 32).decode()},
        }
    ]
    block = config["validator"]["init_block"]
    assert (block["workchain"], block["shard"], block["seqno"]) == (-1, -9223372036854775808, 0)
    assert base64.b64decode(block["root_hash"]) == block_id(0).root_hash
    assert config["validator"]["zero_state"] == block
    (entry,) = config["dht"]["static_nodes"]["nodes"]
    assert entry["addr_list"]["addrs"] == [{"@type": "adnl.address.udp", "ip": 2130706433, "port": 4400}]
    assert base64.b64decode(entry["id"]["key"]) == key.public_key
    unsigned = DhtNode.unverified(key.public_key, node.addresses, 99, b"").boxed()
    assert verify(key.public_key, unsigned, base64.b64decode(entry["signature"]))
    assert not list(tmp_path.glob(".*"))
