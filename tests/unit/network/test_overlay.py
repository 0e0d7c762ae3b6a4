from __future__ import annotations

import random

import pytest

from tonfs.errors import BadPacket
from tonfs.ids import BagId
from tonfs.network import overlay
from tonfs.network.keys import KeyPair
from tonfs.network.overlay import Members, OverlayNode, sign_node

BAG_A = BagId(bytes.fromhex("d191c07445c59f22b1525008897f07398f341f3a7cf70ad3e2fd9ba4c8998571"))
OVERLAY_A = bytes.fromhex("4bdfd936fae332e385fc9f69b6bef417dba732732ee7393bb9494fe850bf515e")
NOW = 1_700_000_000
KEY_A = KeyPair.from_seed(bytes(range(32)))
OWN = KeyPair.from_seed(bytes(32))


def node(number: int, version: int = NOW, overlay_id: bytes = OVERLAY_A) -> OverlayNode:
    key = KeyPair.from_seed(number.to_bytes(32, "big"))
    return sign_node(key.public_key, key.sign, overlay_id, version)


def test_the_overlay_id_and_node_signature_of_vector_a():
    assert overlay.overlay_id(BAG_A) == OVERLAY_A
    signed = sign_node(KEY_A.public_key, KEY_A.sign, OVERLAY_A, NOW)
    assert signed.signature.hex() == (
        "97a237f55e93150f11d86ed1e8d4cb0757504397c982afa61377fa976d97313b"
        "0a99ff3a606a7259c26f9764c7f5c05b0dd765a4b0e3d28fd36a55aac686300c"
    )
    assert signed.valid()
    assert len(signed.pack()) == overlay.NODE_SIZE


def test_nodes_survive_the_wire_in_both_directions():
    nodes = [node(1), node(2)]
    assert overlay.parse_nodes(overlay.pack_nodes(nodes)) == nodes
    assert overlay.parse_get_random_peers(overlay.pack_get_random_peers(nodes)) == nodes
    with pytest.raises(BadPacket):
        overlay.parse_nodes(overlay.pack_nodes(nodes), limit=1)


def test_members_take_only_signed_fresh_nodes_of_their_overlay():
    members = Members(OVERLAY_A, OWN.short_id)
    good = node(1)
    wrong_signature = OverlayNode(node(2).public_key, OVERLAY_A, NOW, good.signature)
    others = [node(3, NOW - 3601), node(4, NOW + 61), node(5, NOW, bytes(32)), wrong_signature]
    ourselves = sign_node(OWN.public_key, OWN.sign, OVERLAY_A, NOW)
    assert members.learn([good, ourselves, *others], NOW) == [good]
    assert list(members) == [good]
    assert good.id in members


def test_a_newer_node_replaces_an_older_one_and_silence_ends_membership():
    members = Members(OVERLAY_A, OWN.short_id)
    members.learn([node(1, NOW - 100)], NOW)
    assert members.learn([node(1, NOW)], NOW) == []
    assert members.learn([node(1, NOW - 50)], NOW) == []
    assert [n.version for n in members] == [NOW]
    members.learn([node(2, NOW + 3000)], NOW + 3000)
    assert len(members) == 2
    members.learn([], NOW + 3601)
    assert [n.id for n in members] == [node(2).id]


def test_membership_is_bounded_and_keeps_the_newest(monkeypatch):
    monkeypatch.setattr(overlay, "MEMBERS_MAX", 3)
    members = Members(OVERLAY_A, OWN.short_id)
    new = members.learn([node(i, NOW - i) for i in range(1, 7)], NOW)
    assert sorted(n.version for n in members) == [NOW - 3, NOW - 2, NOW - 1]
    assert len(new) == 3
    assert len(members.sample(7, random.Random(1))) == 3
