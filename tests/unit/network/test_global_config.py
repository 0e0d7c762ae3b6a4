from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonfs.errors import BadData, NotFound
from tonfs.network.address import AddressList
from tonfs.network.dht_types import DhtNode
from tonfs.network.global_config import (
    LiteServer,
    emit_dht,
    emit_lite_servers,
    load_global_config,
    parse_global_config,
    signed_ip,
)
from tonfs.network.keys import KeyPair

KEY = KeyPair.from_seed(bytes(range(32)))
NODE = DhtNode.create(KEY, AddressList((("192.168.0.1", 4400), ("127.0.0.1", 4401)), 1, 2), 3)
SERVER = LiteServer(("200.1.2.3", 4443), KEY.public_key)


def whole() -> dict[str, Any]:
    config = {"@type": "config.global", "dht": emit_dht([NODE], k=7, a=2)}
    return {**config, "liteservers": emit_lite_servers([SERVER]), "validator": {"@type": "validator.config.global"}}


def test_what_is_written_is_read_back_and_still_signed():
    config = parse_global_config(json.dumps(whole()))
    assert config.dht_nodes == (NODE,)
    assert config.dht_nodes[0].check()
    assert config.lite_servers == (SERVER,)
    assert (config.k, config.a) == (7, 2)
    assert config.raw["validator"] == {"@type": "validator.config.global"}


def test_ip_numbers_are_written_signed_and_read_with_either_sign():
    assert signed_ip("127.0.0.1") == 2130706433
    assert signed_ip("192.168.0.1") == -1062731775
    config = whole()
    config["liteservers"][0]["ip"] += 1 << 32
    assert parse_global_config(json.dumps(config)).lite_servers == (SERVER,)


def test_missing_parts_are_empty():
    config = parse_global_config(b"{}")
    assert config.dht_nodes == ()
    assert config.lite_servers == ()
    assert (config.k, config.a) == (10, 3)


def test_a_node_without_an_address_that_we_can_use_is_passed_over():
    config = whole()
    node = config["dht"]["static_nodes"]["nodes"][0]
    node["addr_list"]["addrs"] = [{"@type": "adnl.address.udp6", "ip": "::1", "port": 3}]
    assert parse_global_config(json.dumps(config)).dht_nodes == ()


def test_the_mainnet_form_with_version_minus_one_and_no_types_is_read():
    config = {
        "dht": {
            "static_nodes": {
                "nodes": [
                    {
                        "id": {"key": base64.b64encode(KEY.public_key).decode()},
                        "addr_list": {"addrs": [{"ip": -1307380867, "port": 15888}], "version": 0},
                        "version": -1,
                        "signature": base64.b64encode(bytes(64)).decode(),
                    }
                ]
            }
        }
    }
    [node] = parse_global_config(json.dumps(config)).dht_nodes
    assert node.address == ("178.18.243.125", 15888)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["dht"], []),
        (["dht", "k"], "6"),
        (["dht", "k"], 0),
        (["dht", "k"], True),
        (["dht", "static_nodes"], 5),
        (["dht", "static_nodes", "nodes"], {}),
        (["dht", "static_nodes", "nodes", 0], "node"),
        (["dht", "static_nodes", "nodes", 0, "id", "key"], "AAAA"),
        (["dht", "static_nodes", "nodes", 0, "id", "key"], "*" * 44),
        (["dht", "static_nodes", "nodes", 0, "id", "key"], "ключ"),
        (["dht", "static_nodes", "nodes", 0, "id", "@type"], "pub.aes"),
        (["dht", "static_nodes", "nodes", 0, "version"], 1 << 40),
        (["dht", "static_nodes", "nodes", 0, "signature"], 5),
        (["dht", "static_nodes", "nodes", 0, "addr_list", "addrs", 0, "ip"], 1 << 33),
        (["dht", "static_nodes", "nodes", 0, "addr_list", "addrs", 0, "ip"], 1.5),
        (["dht", "static_nodes", "nodes", 0, "addr_list", "addrs", 0, "port"], None),
        (["liteservers"], {}),
        (["liteservers", 0, "id"], None),
        (["liteservers", 0, "ip"], "127.0.0.1"),
    ],
)
def test_nonsense_is_bad_data(path, value):
    config = whole()
    place: Any = config
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(BadData):
        parse_global_config(json.dumps(config))


def test_what_is_not_an_object_is_bad_data(tmp_path):
    for text in ("", "[]", "null", "{", '"x"', "[" * 100_000):
        with pytest.raises(BadData):
            parse_global_config(text)
    with pytest.raises(BadData):
        parse_global_config(b"\xff\xfe")
    with pytest.raises(NotFound):
        load_global_config(tmp_path / "absent.json")
    path = tmp_path / "global.config.json"
    path.write_text("no", encoding="utf-8")
    with pytest.raises(BadData, match=r"global\.config\.json"):
        load_global_config(path)
    path.write_text(json.dumps(whole()), encoding="utf-8")
    assert load_global_config(path).dht_nodes == (NODE,)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["key", "ip", "id", "x"]), inner),
    max_leaves=8,
)


@given(JSON, st.sampled_from(["dht", "liteservers", "nodes"]))
def test_any_json_is_read_or_refused(value, where):
    root: Any = {where: value}
    if where == "nodes":
        root = {"dht": {"static_nodes": {"nodes": [value]}}}
    with contextlib.suppress(BadData):
        parse_global_config(json.dumps(root))
