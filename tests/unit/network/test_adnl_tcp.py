"""ADNL over TCP: both roles of our codec, pytoniq's client side against it, and hostile bytes."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq.liteclient.client import LiteClient

from tonfs.errors import BadPacket
from tonfs.network.adnl_tcp import HELLO_SIZE, MAX_PAYLOAD, FrameCodec, accept_hello, make_hello
from tonfs.network.keys import KeyPair

SERVER = KeyPair.from_seed(bytes(range(32)))


def find(short_id: bytes) -> KeyPair | None:
    return SERVER if short_id == SERVER.short_id else None


def pair(**limits: int) -> tuple[FrameCodec, FrameCodec]:
    """(client, server) of one connection."""
    hello, client = make_hello(KeyPair.generate(), SERVER.public_key)
    return client, accept_hello(hello, find, **limits)


def test_payloads_cross_both_ways() -> None:
    client, server = pair()
    assert client.feed(server.frame(b"")) == [b""]
    assert server.feed(client.frame(b"one") + client.frame(b"two" * 1000)) == [b"one", b"two" * 1000]
    assert client.feed(server.frame(b"three")) == [b"three"]


@given(st.lists(st.binary(max_size=300), max_size=6), st.integers(1, 97))
@settings(max_examples=50, deadline=None)
def test_a_stream_may_be_cut_anywhere(payloads: list[bytes], step: int) -> None:
    client, server = pair()
    stream = b"".join(client.frame(p) for p in payloads)
    got: list[bytes] = []
    for start in range(0, len(stream), step):
        got += server.feed(stream[start : start + step])
    assert got == payloads


def test_pytoniq_and_our_server_side_understand_each_other() -> None:
    stock = LiteClient("127.0.0.1", 1, base64.b64encode(SERVER.public_key).decode())
    server = accept_hello(stock.handshake(), find)
    assert server.feed(stock.encrypt(stock.serialize_packet(b"question"))) == [b"question"]
    answer = stock.decrypt(server.frame(b"answer"))
    assert struct.unpack("<I", answer[:4])[0] == len(answer) - 4
    assert answer[36:-32] == b"answer"


def test_a_hello_for_another_server_is_refused() -> None:
    hello, _ = make_hello(KeyPair.generate(), KeyPair.generate().public_key)
    with pytest.raises(BadPacket, match="another server"):
        accept_hello(hello, find)


def test_a_hello_with_a_flipped_bit_is_refused() -> None:
    hello, _ = make_hello(KeyPair.generate(), SERVER.public_key)
    for position in (33, 70, 100, 255):
        bad = bytearray(hello)
        bad[position] ^= 1
        with pytest.raises(BadPacket):
            accept_hello(bytes(bad), find)
    with pytest.raises(BadPacket):
        accept_hello(hello[:-1], find)


@given(st.binary(min_size=HELLO_SIZE - 32, max_size=HELLO_SIZE - 32))
@settings(max_examples=100, deadline=None)
def test_any_hello_bytes_end_in_bad_packet(tail: bytes) -> None:
    with pytest.raises(BadPacket):
        accept_hello(SERVER.short_id + tail, find)


@given(st.binary(min_size=4, max_size=200))
@settings(max_examples=200, deadline=None)
def test_random_stream_bytes_are_an_error_or_wait_for_more(data: bytes) -> None:
    _, server = pair()
    with contextlib.suppress(BadPacket):
        assert server.feed(data) == []


def test_a_frame_over_the_limit_is_refused_before_its_bytes_arrive() -> None:
    client, server = pair(max_frame=1000)
    assert server.feed(client.frame(bytes(936))) == [bytes(936)]
    with pytest.raises(BadPacket, match="announces 1001"):
        server.feed(client.frame(bytes(937))[:4])
    with pytest.raises(BadPacket):
        client.frame(bytes(MAX_PAYLOAD + 1))


def test_a_short_length_and_a_wrong_checksum_are_refused() -> None:
    key, iv = os.urandom(32), os.urandom(16)
    mirror = FrameCodec(send_key=key, send_iv=iv, receive_key=key, receive_iv=iv)
    frame = mirror.frame(b"payload")
    flipped = frame[:-1] + bytes([frame[-1] ^ 1])
    with pytest.raises(BadPacket, match="checksum"):
        FrameCodec(send_key=key, send_iv=iv, receive_key=key, receive_iv=iv).feed(flipped)
    length_xor = bytes(a ^ b for a, b in zip(struct.pack("<I", 71), struct.pack("<I", 63), strict=True))
    short = bytes(a ^ b for a, b in zip(frame[:4], length_xor, strict=True))
    with pytest.raises(BadPacket, match="announces 63"):
        FrameCodec(send_key=key, send_iv=iv, receive_key=key, receive_iv=iv).feed(short)


def test_the_streams_use_the_params_as_the_reference_says() -> None:
    hello, client = make_hello(KeyPair.generate(), SERVER.public_key)
    server = accept_hello(hello, find)
    assert hello[:32] == hashlib.sha256(b"\xc6\xb4\x13\x48" + SERVER.public_key).digest()
    assert server.frame(b"x") != client.frame(b"x")
