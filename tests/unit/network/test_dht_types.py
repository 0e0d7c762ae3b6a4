"""DHT objects against the vectors of reference protocol 9.1, against pytoniq-core's TL, and against lies."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonfs.errors import BadPacket
from tonfs.ids import AdnlId, BagId, ProviderKey
from tonfs.network import dht_wire as wire
from tonfs.network import tl
from tonfs.network.address import AddressList
from tonfs.network.dht_types import (
    DhtKey,
    DhtNode,
    DhtValue,
    address_key,
    merge_nodes,
    overlay_key,
    overlay_value,
    provider_record_key,
    signed_value,
)
from tonfs.network.keys import KeyPair
from tonfs.network.overlay import OverlayNode, parse_nodes, sign_node

NOW = 1_700_000_000
KEY_A = KeyPair.from_seed(bytes(range(32)))
KEY_B = KeyPair.from_seed(bytes(range(32, 64)))
BAG_A = BagId(bytes.fromhex("d191c07445c59f22b1525008897f07398f341f3a7cf70ad3e2fd9ba4c8998571"))
OVERLAY_A = bytes.fromhex("4bdfd936fae332e385fc9f69b6bef417dba732732ee7393bb9494fe850bf515e")
ADDRESSES = AddressList((("127.0.0.1", 4400),), version=NOW, reinit_date=NOW)


def member(seed: int, version: int) -> OverlayNode:
    key = KeyPair.from_seed(bytes([seed]) * 32)
    return sign_node(key.public_key, key.sign, OVERLAY_A, version)


def address_value(ttl: int = NOW + 3600) -> DhtValue:
    return signed_value(KEY_A, b"address", ADDRESSES.boxed(), ttl)


def test_key_ids_of_the_vectors():
    assert KEY_A.short_id.hex() == "c6fa26802422205ef272b0208c6273e83f94f3a0b88cd7e7aa2329726dc37820"
    assert address_key(KEY_A.short_id).id.hex() == "1ce46877e5d7c0b61fa49dd865c1c9efb36e3d6da4c76d68bdaab0b72c2ae313"
    assert overlay_key(BAG_A).owner_id == OVERLAY_A
    assert overlay_key(BAG_A).id.hex() == "9bf25a4e6367c3e664f154992ee372f09c8642173f3e98282885b28dfbb65c79"


def test_a_node_is_signed_over_itself_with_an_empty_signature():
    node = DhtNode.create(KEY_A, ADDRESSES, NOW)
    assert node.check()
    assert node.address == ("127.0.0.1", 4400)
    again = wire.parse_node(node.boxed())
    assert again == node
    assert again.check()
    assert not replace(again, unsigned=again.unsigned[:-4] + bytes(4)).check()
    assert not DhtNode.create(KEY_A, ADDRESSES, 0).check()
    assert not DhtNode.create(KEY_A, AddressList((), NOW, NOW), NOW).check()


def test_a_node_signed_for_a_network_carries_the_network_id_before_the_signature():
    plain = DhtNode.create(KEY_A, ADDRESSES, NOW)
    network = (-239).to_bytes(4, "little", signed=True)
    to_sign = tl.Writer(tl.DHT_NODE).raw(plain.unsigned).bytes_(network).done()
    assert replace(plain, signature=network + KEY_A.sign(to_sign)).check()
    assert not replace(plain, signature=bytes(4) + KEY_A.sign(to_sign)).check()


def test_a_nodes_signature_holds_over_addresses_we_do_not_understand():
    udp = tl.Writer(tl.ADNL_ADDRESS_UDP).u32(0x7F000001).u32(80).done()
    quic = tl.Writer(tl.ADNL_ADDRESS_QUIC).u32(1).u32(2).done()
    addresses = tl.Writer().vector([quic, udp]).u32(1).u32(1).u32(0).u32(0).done()
    unsigned = tl.Writer(tl.PUB_ED25519).raw(KEY_A.public_key).raw(addresses).u32(NOW).done()
    signature = KEY_A.sign(tl.Writer(tl.DHT_NODE).raw(unsigned).bytes_(b"").done())
    node = wire.parse_node(tl.Writer(tl.DHT_NODE).raw(unsigned).bytes_(signature).done())
    assert node.check()
    assert node.address == ("127.0.0.1", 80)


def test_a_signed_value_is_good_until_anything_in_it_changes():
    value = address_value()
    value.check(NOW)
    assert value.key == address_key(KEY_A.short_id)
    again = wire.parse_value_result(wire.pack_value_found(value))
    assert again == value
    for lie in (
        replace(value, value=value.value + bytes(4)),
        replace(value, ttl=value.ttl - 1),
        replace(value, signature=KEY_B.sign(b"x")),
        replace(value, key_signature=KEY_B.sign(b"x")),
        replace(value, key=DhtKey(KEY_A.short_id, b"other")),
        replace(value, key=DhtKey(KEY_B.short_id, b"address")),
        replace(value, rule=tl.DHT_RULE_ANYBODY),
        replace(value, rule=tl.DHT_RULE_OVERLAY_NODES),
        replace(value, owner=tl.Writer(tl.PUB_ED25519).raw(KEY_B.public_key).done()),
    ):
        with pytest.raises(BadPacket):
            lie.check(NOW)


def test_values_may_not_live_longer_than_an_hour_and_a_minute():
    address_value(NOW + 3660).check(NOW)
    with pytest.raises(BadPacket):
        address_value(NOW + 3661).check(NOW)
    assert address_value(NOW).expired(NOW)
    assert not address_value(NOW + 1).expired(NOW)


def test_an_overlay_record_has_no_signatures_but_signed_members():
    value = overlay_value(BAG_A, [member(1, NOW), member(2, NOW)], NOW + 3600)
    value.check(NOW)
    assert len(overlay_value(BAG_A, [member(i, NOW) for i in range(9)], NOW + 1).value) == 708
    stranger = sign_node(KEY_A.public_key, KEY_A.sign, bytes(32), NOW)
    forged = replace(member(1, NOW), version=NOW + 5)
    for nodes in ([stranger], [member(2, NOW), forged]):
        with pytest.raises(BadPacket):
            overlay_value(BAG_A, nodes, NOW + 3600).check(NOW)
    with pytest.raises(BadPacket):
        replace(value, signature=bytes(64)).check(NOW)


def test_anybody_may_write_only_where_the_owner_is_not_a_key():
    owner = tl.Writer(tl.PUB_UNENC).bytes_(b"x").done()
    value = DhtValue(DhtKey(sha256(owner).digest(), b"n"), owner, tl.DHT_RULE_ANYBODY, b"", b"v", NOW + 9, b"")
    value.check(NOW)
    keyed = address_value()
    with pytest.raises(BadPacket):
        replace(keyed, rule=tl.DHT_RULE_ANYBODY, key_signature=b"", signature=b"").check(NOW)
    assert value.merged(replace(value, value=b"w"), NOW).value == b"w"


def test_a_signed_value_is_replaced_by_a_longer_lived_one_only():
    old, new = address_value(NOW + 100), address_value(NOW + 200)
    assert old.merged(new, NOW) is new
    assert new.merged(old, NOW) is new


def test_overlay_records_merge_by_member_and_stay_within_five():
    first = overlay_value(BAG_A, [member(i, NOW + i) for i in (1, 2, 3)], NOW + 100)
    second = overlay_value(BAG_A, [member(i, NOW + 10 + i) for i in (3, 4, 5, 6)], NOW + 50)
    merged = first.merged(second, NOW)
    merged.check(NOW)
    nodes = parse_nodes(merged.value)
    assert [node.version - NOW for node in nodes] == [16, 15, 14, 13, 2]
    assert merged.ttl == NOW + 100
    assert first.merged(address_value(), NOW) is first


def test_members_signed_for_the_future_or_long_ago_push_nobody_out_of_a_record():
    poisoned = overlay_value(BAG_A, [member(i, 2**31 - 1) for i in range(1, 6)], NOW + 3600)
    honest = overlay_value(BAG_A, [member(7, NOW), member(8, NOW + 60), member(9, NOW - 3601)], NOW + 3600)
    for merged in (poisoned.merged(honest, NOW), honest.merged(poisoned, NOW)):
        assert parse_nodes(merged.value) == [member(8, NOW + 60), member(7, NOW)]


def test_merging_lists_keeps_the_newest_entry_of_each_member():
    assert merge_nodes([[member(1, 5), member(2, 9)], [member(1, 7)]]) == [member(2, 9), member(1, 7)]


def test_keys_have_a_name_and_a_small_index():
    for key in (DhtKey(bytes(32), b""), DhtKey(bytes(32), b"x", 16), DhtKey(bytes(32), b"x", -1)):
        with pytest.raises(BadPacket):
            DhtKey.read(tl.Reader(key.bare()))
    with pytest.raises(BadPacket):
        DhtKey.read(tl.Reader(DhtKey(bytes(32), b"x" * 128).bare()))


def test_the_provider_record_belongs_to_the_providers_key():
    assert provider_record_key(ProviderKey(KEY_A.public_key)) == DhtKey(KEY_A.short_id, b"storage-provider")


def test_queries_and_answers_survive_the_wire():
    node = DhtNode.create(KEY_A, ADDRESSES, NOW)
    queries: list[wire.Query] = [
        wire.Ping(2**64 - 1),
        wire.FindNode(bytes(32), 10),
        wire.FindValue(bytes(32), 6),
        wire.Store(address_value()),
        wire.GetSignedAddressList(),
    ]
    for query in queries:
        assert wire.parse_query(wire.pack_query(query)) == (None, query)
        assert wire.parse_query(wire.pack_query(query, node)) == (node, query)
        with pytest.raises(BadPacket):
            wire.parse_query(wire.pack_query(query) + bytes(4))
    assert wire.parse_nodes(wire.pack_nodes([node, node])) == [node, node]
    assert wire.parse_value_result(wire.pack_value_not_found([node])) == [node]
    assert wire.parse_pong(wire.pack_pong(7)) == 7


def test_ids_and_layout_agree_with_pytoniq_cores_schemas():
    from pytoniq_core.tl import TlGenerator

    schemas = TlGenerator.with_default_schemas().generate()
    for name, tag in (
        ("dht.findValue", tl.DHT_FIND_VALUE),
        ("dht.findNode", tl.DHT_FIND_NODE),
        ("dht.store", tl.DHT_STORE),
        ("dht.value", tl.DHT_VALUE),
        ("dht.keyDescription", tl.DHT_KEY_DESCRIPTION),
        ("dht.query", tl.DHT_QUERY),
        ("dht.valueFound", tl.DHT_VALUE_FOUND),
        ("dht.valueNotFound", tl.DHT_VALUE_NOT_FOUND),
        ("dht.getSignedAddressList", tl.DHT_GET_SIGNED_ADDRESS_LIST),
    ):
        assert int.from_bytes(schemas.get_by_name(name).little_id(), "little") == tag
    theirs = schemas.serialize(schemas.get_by_name("dht.findValue"), {"key": "11" * 32, "k": 6})
    assert theirs == wire.pack_query(wire.FindValue(b"\x11" * 32, 6))


BYTES = st.binary(max_size=400)


@given(BYTES, st.integers(0, 30))
def test_foreign_bytes_end_in_bad_packet(data, which):
    heads = [tl.DHT_QUERY, tl.DHT_STORE, tl.DHT_VALUE_FOUND, tl.DHT_VALUE_NOT_FOUND, tl.DHT_NODES, tl.DHT_NODE]
    data = heads[which % len(heads)].to_bytes(4, "little") + data
    for parse in (wire.parse_query, wire.parse_value_result, wire.parse_nodes, wire.parse_node, wire.parse_pong):
        with contextlib.suppress(BadPacket):
            parse(data)


@given(st.data())
def test_a_damaged_store_query_is_refused_or_fails_its_check(data):
    packed = bytearray(wire.pack_query(wire.Store(address_value())))
    position = data.draw(st.integers(0, len(packed) - 1))
    packed[position] ^= data.draw(st.integers(1, 255))
    try:
        _, query = wire.parse_query(bytes(packed))
        assert isinstance(query, wire.Store)
        query.value.check(NOW)
    except BadPacket:
        return
    assert query.value == address_value(), "only a byte of padding may change without notice"


def test_short_ids_are_adnl_ids():
    assert AdnlId(KEY_A.short_id) == DhtNode.create(KEY_A, ADDRESSES, NOW).id
