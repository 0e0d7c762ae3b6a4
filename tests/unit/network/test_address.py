"""Address lists: ours are read back, foreign ones are skipped where we cannot use them."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonfs.cli.bag_peer import Network, listen_address
from tonfs.errors import BadPacket
from tonfs.network import tl
from tonfs.network.address import AddressList, pack_ip, reach_of


def test_an_address_list_survives_the_wire_and_writes_ip_numbers_little_endian():
    addresses = AddressList((("127.0.0.1", 4400), ("10.1.2.3", 1)), version=5, reinit_date=6)
    assert AddressList.parse(addresses.boxed()) == addresses
    assert addresses.bare()[8:12] == bytes((1, 0, 0, 127))
    assert addresses.first == ("127.0.0.1", 4400)


def test_unusable_and_unknown_kinds_of_addresses_are_skipped():
    items = [
        tl.Writer(tl.ADNL_ADDRESS_UDP6).raw(bytes(16)).u32(5).done(),
        tl.Writer(tl.ADNL_ADDRESS_QUIC).u32(5).u32(5).done(),
        tl.Writer(tl.ADNL_ADDRESS_REVERSE).done(),
        tl.Writer(tl.ADNL_ADDRESS_TUNNEL).raw(bytes(32)).u32(tl.PUB_AES).raw(bytes(32)).done(),
        tl.Writer(tl.ADNL_ADDRESS_UDP).u32(0).u32(80).done(),
        tl.Writer(tl.ADNL_ADDRESS_UDP).u32(0x7F000001).u32(0).done(),
        tl.Writer(tl.ADNL_ADDRESS_UDP).u32(0x7F000001).u32(70_000).done(),
        tl.Writer(tl.ADNL_ADDRESS_UDP).u32(0x7F000001).u32(81).done(),
    ]
    data = tl.Writer(tl.ADNL_ADDRESS_LIST).vector(items).u32(1).u32(2).u32(0).u32(0).done()
    assert AddressList.parse(data).addresses == (("127.0.0.1", 81),)


@given(st.binary(max_size=300))
def test_foreign_bytes_end_in_bad_packet_or_in_a_list(data):
    with contextlib.suppress(BadPacket):
        AddressList.parse(tl.ADNL_ADDRESS_LIST.to_bytes(4, "little") + data)


@pytest.mark.parametrize(("host", "listen"), [("127.0.0.1", "127.0.0.1:0"), ("5.9.10.47", "0.0.0.0:0")])
def test_without_a_listen_address_a_bag_command_reaches_the_network_that_it_was_given(tmp_path, host, listen):
    key = {"@type": "pub.ed25519", "key": base64.b64encode(bytes(range(32))).decode()}
    config = tmp_path / "config"
    config.write_text(json.dumps({"liteservers": [{"ip": pack_ip(host), "port": 4924, "id": key}]}), encoding="ascii")
    assert listen_address(Network(None, "", "", None, None), config) == listen
    assert listen_address(Network(None, "127.0.0.1:5", "", None, None), config) == "127.0.0.1:5"
    reach = reach_of(listen.partition(":")[0], hosts=[host])
    assert reach.may_call((host, 4924))
    assert reach.loopback_only is (host == "127.0.0.1")
