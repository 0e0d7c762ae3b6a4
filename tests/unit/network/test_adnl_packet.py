from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonfs.errors import BadPacket
from tonfs.network import adnl_packet as wire
from tonfs.network import tl
from tonfs.network.address import AddressList
from tonfs.network.adnl_channel import Channel
from tonfs.network.aes_ctr import MAX_DATA, crypt, crypt_libcrypto, crypt_portable
from tonfs.network.keys import KeyPair

A = KeyPair.from_seed(bytes(range(32)))
B = KeyPair.from_seed(bytes(range(32, 64)))
CHANNEL_A = KeyPair.from_seed(b"\x07" * 32)
CHANNEL_B = KeyPair.from_seed(b"\x09" * 32)
DATAGRAM = bytes.fromhex(
    "7a04e9e656382387477600a8b9d6b237689c16c5d321d3b9ca343d9806c4da20"
    "16979ddb8abc59aa91acc6834a350f47d40d4d7571933643e111399afec21107"
    "1e1435bf810679c8da913780ea162153933111484711e2d36a1ed42a0e2fcab88b9671c73d694ca2fd18ac92"
)
MESSAGES = [
    wire.Query(bytes(32), b"q" * 300),
    wire.Answer(b"\1" * 32, b""),
    wire.Custom(b"c" * 840),
    wire.Nop(),
    wire.Reinit(1_700_000_000),
    wire.CreateChannel(b"\2" * 32, 5),
    wire.ConfirmChannel(b"\2" * 32, b"\3" * 32, 6),
    wire.Part(b"\4" * 32, 2000, 1024, b"p" * 976),
    wire.Ping(2**64 - 1),
    wire.Pong(1),
]


def channels() -> tuple[Channel, Channel]:
    return (
        Channel(CHANNEL_A, CHANNEL_B.public_key, 1, A.short_id, B.short_id),
        Channel(CHANNEL_B, CHANNEL_A.public_key, 1, B.short_id, A.short_id),
    )


def test_channel_keys_and_ids_are_those_of_the_reference() -> None:
    a, b = channels()
    assert a.out_key.hex() == "2cb7f43f03eba482d4605e910e04c9209c90c3cf50dbf1ff3f2bd641d468bf16"
    assert a.in_key == a.out_key[::-1]
    assert a.in_id.hex() == "7eda2e69a078a6ad73787528f1537a7fc2b74c7cb8e1fef84e44d22fd1b7d91f"
    assert a.out_id.hex() == "7a04e9e656382387477600a8b9d6b237689c16c5d321d3b9ca343d9806c4da20"
    assert (b.in_id, b.out_id, b.in_key) == (a.out_id, a.in_id, a.out_key)


def test_channel_datagram_is_that_of_the_reference() -> None:
    a, b = channels()
    plain = wire.build_contents(
        [wire.pack_message(wire.Nop())], seqno=1, confirm_seqno=0, rand1=b"1234567", rand2=b"7654321"
    )
    assert a.seal(plain) == DATAGRAM
    assert b.open(DATAGRAM) == plain
    contents = wire.parse_contents(plain)
    assert (contents.messages, contents.seqno, contents.confirm_seqno) == ((wire.Nop(),), 1, 0)


def test_any_changed_bit_of_a_datagram_is_noticed() -> None:
    _, b = channels()
    for at in range(32, len(DATAGRAM)):
        with pytest.raises(BadPacket):
            b.open(DATAGRAM[:at] + bytes((DATAGRAM[at] ^ 4,)) + DATAGRAM[at + 1 :])
    for size in (0, 31, 32, 40, 64, 2049):
        with pytest.raises(BadPacket):
            b.open(DATAGRAM.ljust(2049, b"\0")[:size])


@given(st.lists(st.integers(0, 1500), min_size=1, max_size=6))
def test_both_ciphers_agree_in_any_order_of_lengths(sizes: list[int]) -> None:
    assert crypt_libcrypto is not None
    for size in sizes:
        key, iv, data = os.urandom(32), os.urandom(16), os.urandom(size)
        assert crypt_libcrypto(key, iv, data) == crypt_portable(key, iv, data)


def test_the_cipher_refuses_lengths_that_c_would_overrun() -> None:
    for key, iv, data in (
        (bytes(31), bytes(16), b"x"),
        (bytes(32), bytes(15), b"x"),
        (bytes(32), bytes(16), bytes(MAX_DATA + 1)),
    ):
        with pytest.raises(ValueError, match="length"):
            crypt(key, iv, data)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_every_message_comes_back(message: wire.Message) -> None:
    assert wire.parse_message(wire.pack_message(message)) == message


def root_plain(sign: KeyPair = A, **changes: object) -> bytes:
    address = AddressList((("127.0.0.1", 3333),), 7, 7).bare()
    return wire.build_contents(
        [wire.pack_message(m) for m in MESSAGES[3:6]],
        seqno=3,
        confirm_seqno=2,
        from_key=A.public_key,
        address=address,
        address_version=4,
        dates=(10, 9),
        sign=sign,
    )


def test_a_root_packet_comes_back_with_a_good_signature() -> None:
    datagram = wire.seal_root(B.public_key, B.short_id, root_plain())
    assert datagram[:32] == B.short_id
    contents = wire.parse_contents(wire.open_root(B, datagram))
    assert contents.messages == tuple(MESSAGES[3:6])
    assert (contents.from_key, contents.seqno, contents.confirm_seqno) == (A.public_key, 3, 2)
    assert (contents.reinit_date, contents.dst_reinit_date, contents.address_version) == (10, 9, 4)
    assert contents.address is not None
    assert contents.address.addresses == (("127.0.0.1", 3333),)
    wire.check_signature(contents, A.public_key)
    with pytest.raises(BadPacket):
        wire.check_signature(contents, B.public_key)
    with pytest.raises(BadPacket):
        wire.open_root(A, datagram)


def test_a_signature_by_another_key_is_bad() -> None:
    with pytest.raises(BadPacket):
        wire.check_signature(wire.parse_contents(root_plain(sign=B)), A.public_key)


def test_the_largest_root_packet_with_a_part_fits_into_a_datagram() -> None:
    part = wire.pack_message(wire.Part(bytes(32), 8000, 0, bytes(wire.PART_SIZE)))
    confirm = wire.pack_message(wire.ConfirmChannel(bytes(32), bytes(32), 1))
    address = AddressList((("127.0.0.1", 3333),), 7, 7).bare()
    plain = wire.build_contents(
        [confirm, part], seqno=3, confirm_seqno=2, from_key=A.public_key, address=address,
        address_version=4, dates=(10, 9), sign=A,
    )  # fmt: skip
    assert len(wire.seal_root(B.public_key, B.short_id, plain)) <= wire.MAX_DATAGRAM


def contents_with(flags: int, body: bytes) -> bytes:
    return tl.Writer(tl.ADNL_PACKET_CONTENTS).bytes_(bytes(7)).u32(flags).raw(body).bytes_(bytes(15)).done()


def test_forbidden_packets_are_refused() -> None:
    nop = wire.pack_message(wire.Nop())
    one = wire.F_MESSAGE
    assert wire.parse_contents(contents_with(one, nop)).messages == (wire.Nop(),)
    for flags, body in (
        (0x2000, b""),
        (one | wire.F_MESSAGES, nop + b"\0\0\0\0"),
        (one, nop + b"\0\0\0\0"),
        (wire.F_MESSAGES, b"\xff\xff\xff\xff"),
        (wire.F_FROM, bytes(36)),
        (wire.F_FROM | wire.F_FROM_SHORT, b"\xc6\xb4\x13\x48" + bytes(64)),
        (wire.F_ADDRESS, AddressList((), -1, 0).bare()),
        (wire.F_SIGNATURE, tl.pack_bytes(bytes(65))),
    ):
        with pytest.raises(BadPacket):
            wire.parse_contents(contents_with(flags, body))


@given(st.binary(max_size=300))
def test_parsers_only_raise_bad_packet(data: bytes) -> None:
    head = tl.Writer(tl.ADNL_PACKET_CONTENTS).bytes_(bytes(7)).done()
    for parse, prefix in ((wire.parse_contents, b""), (wire.parse_contents, head), (wire.parse_message, b"")):
        with contextlib.suppress(BadPacket):
            parse(prefix + data)


@given(st.integers(0, 400), st.binary(min_size=1, max_size=8))
def test_a_changed_root_packet_is_bad_or_badly_signed(at: int, change: bytes) -> None:
    plain = root_plain()
    at %= len(plain)
    changed = plain[:at] + change + plain[at + len(change) :]
    if changed == plain:
        return
    try:
        contents = wire.parse_contents(changed)
        wire.check_signature(contents, A.public_key)
    except BadPacket:
        return
    # Only the padding and length prefixes that the signature does not cover may differ.
    assert contents.messages == tuple(MESSAGES[3:6])
