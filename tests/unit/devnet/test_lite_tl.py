"""TL of the lite server, checked against pytoniq's own schemas; hostile bytes."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest
import pytoniq_core.tl
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.lite import SCHEMAS, FakeChain, block_id, decode, encode
from tonfs.devnet import lite_answers, lite_tl
from tonfs.devnet.chain_api import AccountId
from tonfs.errors import BadPacket, TonfsError

BLOCK = {
    "workchain": -1,
    "shard": -(1 << 63),
    "seqno": 4,
    "root_hash": block_id(4).root_hash.hex(),
    "file_hash": block_id(4).file_hash.hex(),
}
SHARD_BLOCK = {**BLOCK, "workchain": 0, "root_hash": block_id(4, 0).root_hash.hex()}
ACCOUNT = {"workchain": 0, "id": (b"\x07" * 32).hex()}
OWNER = AccountId(0, b"\x07" * 32)

REQUESTS: dict[str, dict[str, Any]] = {
    "getMasterchainInfo": {},
    "getMasterchainInfoExt": {"mode": 0},
    "getTime": {},
    "getVersion": {},
    "getAccountState": {"id": BLOCK, "account": ACCOUNT},
    "runSmcMethod": {"mode": 7, "id": BLOCK, "account": ACCOUNT, "method_id": 85143, "params": b"stack"},
    "sendMessage": {"body": b"external"},
    "getTransactions": {"count": 9, "account": ACCOUNT, "lt": 77, "hash": "aa" * 32},
    "getOneTransaction": {"id": BLOCK, "account": ACCOUNT, "lt": 77},
    "getBlock": {"id": BLOCK},
    "getBlockHeader": {"id": BLOCK, "mode": 0},
    "lookupBlock": {"mode": 1, "id": {"workchain": -1, "shard": -(1 << 63), "seqno": 3}},
    "getAllShardsInfo": {"id": BLOCK},
    "getShardInfo": {"id": BLOCK, "workchain": 0, "shard": -(1 << 63), "exact": True},
    "listBlockTransactions": {"id": BLOCK, "mode": 39, "count": 10, "want_proof": b""},
    "listBlockTransactionsExt": {"id": BLOCK, "mode": 39, "count": 10, "want_proof": b""},
    "getConfigAll": {"mode": 0, "id": BLOCK},
    "getConfigParams": {"mode": 0, "id": BLOCK, "param_list": [0, 34, -1]},
    "getLibraries": {"library_list": ["bb" * 32]},
    "getBlockProof": {"mode": 1, "known_block": BLOCK, "target_block": BLOCK},
    "getShardBlockProof": {"id": SHARD_BLOCK},
}


def ask(method: str, data: dict[str, Any], chain: FakeChain | None = None) -> dict[str, Any]:
    request = lite_tl.parse_request(encode(method, data))
    assert request.wait is None
    return decode(lite_answers.answer(chain or FakeChain(), request.function))  # type: ignore[arg-type]


@pytest.mark.parametrize("method", REQUESTS)
def test_every_function_is_parsed_and_its_answer_is_what_pytoniq_expects(method: str) -> None:
    value = ask(method, REQUESTS[method])
    lines = (Path(pytoniq_core.tl.__file__).parent / "schemas" / "lite_api.tl").read_text().split("---functions---")[1]
    (line,) = [row for row in lines.splitlines() if row.startswith(f"liteServer.{method} ")]
    answer_class = line.rsplit("= ", 1)[1].rstrip(";")
    fields = {name for schema in SCHEMAS.get_by_class_name(answer_class) for name in schema.args}
    assert value.keys() <= fields
    assert value, method


@pytest.mark.parametrize(("kind", "names"), [("functions", REQUESTS.keys())])
def test_constructor_ids_are_the_crc_of_the_definition(kind: str, names: Any) -> None:
    text = (Path(pytoniq_core.tl.__file__).parent / "schemas" / "lite_api.tl").read_text()
    for name in names:
        (line,) = [row for row in text.splitlines() if row.startswith(f"liteServer.{name} ")]
        clean = line.rstrip(";").replace("(", "").replace(")", "")
        assert encode(name, REQUESTS[name])[:4] == zlib.crc32(clean.encode()).to_bytes(4, "little"), (kind, name)


def test_the_block_of_the_question_comes_back_byte_for_byte() -> None:
    for method in ("getAccountState", "getBlock", "getBlockHeader", "getAllShardsInfo", "getConfigAll"):
        assert ask(method, REQUESTS[method])["id"] == BLOCK


def test_run_method_sends_just_what_the_mode_asks_for() -> None:
    chain = FakeChain()
    full = ask("runSmcMethod", REQUESTS["runSmcMethod"], chain)
    assert chain.calls == [("run", OWNER, 85143, b"stack")]
    assert (full["mode"], full["exit_code"], full["result"]) == (7, 11, b"result")
    assert (full["shard_proof"], full["proof"], full["state_proof"]) == (b"shard", b"proof", b"state")
    only_result = ask("runSmcMethod", {**REQUESTS["runSmcMethod"], "mode": 4})
    assert only_result["mode"] == 4
    assert "proof" not in only_result
    assert "state_proof" not in only_result
    with_c7 = ask("runSmcMethod", {**REQUESTS["runSmcMethod"], "mode": 31})
    assert with_c7["mode"] == 7


def test_lookup_takes_seqno_or_lt_or_time() -> None:
    chain = FakeChain()
    where = {"workchain": -1, "shard": -(1 << 63), "seqno": 3}
    ask("lookupBlock", {"mode": 1, "id": where}, chain)
    ask("lookupBlock", {"mode": 2, "id": where, "lt": 99}, chain)
    ask("lookupBlock", {"mode": 4, "id": where, "utime": 1_700_000_000}, chain)
    assert [c[3:] for c in chain.calls] == [(3, None, None), (None, 99, None), (None, None, 1_700_000_000)]
    data = bytearray(encode("lookupBlock", {"mode": 1, "id": where}))
    data[4] = 3
    with pytest.raises(BadPacket):
        lite_tl.parse_request(bytes(data))


def test_listing_of_a_block_continues_after_a_transaction() -> None:
    chain = FakeChain()
    after = {"account": "01" * 32, "lt": 201}
    data = {"id": BLOCK, "mode": 167, "count": 2, "after": after, "want_proof": b""}
    value = ask("listBlockTransactions", data, chain)
    assert chain.calls == [("block_transactions", 2, (b"\x01" * 32, 201), False)]
    assert value["incomplete"] is True
    assert [(i["account"], i["lt"], i["hash"]) for i in value["ids"]] == [
        ("01" * 32, 201, "02" * 32),
        ("03" * 32, 202, "04" * 32),
    ]
    assert value["proof"] == b"proof"
    reverse = ask("listBlockTransactions", {"id": BLOCK, "mode": 64 + 7, "count": 2}, chain)
    assert chain.calls[-1] == ("block_transactions", 2, None, True)
    assert not reverse["proof"]


def test_the_wait_prefix_is_taken_off() -> None:
    request = lite_tl.parse_request(encode("getTime", wait=(12, 2500)))
    assert request == lite_tl.Request(lite_tl.Wait(12, 2.5), lite_tl.GetTime())
    for wait in ((-1, 5), (5, -1)):
        with pytest.raises(BadPacket):
            lite_tl.parse_request(encode("getTime", wait=wait))


def test_unknown_functions_trailing_bytes_and_missing_bytes_are_malformed() -> None:
    for data in (
        b"",
        b"\x01",
        b"\xde\xad\xbe\xef",
        encode("getTime") + b"\0\0\0\0",
        encode("getBlock", {"id": BLOCK})[:-4],
    ):
        with pytest.raises(BadPacket):
            lite_tl.parse_request(data)
    with pytest.raises(BadPacket):
        lite_tl.parse_request(encode("getTime", wait=(1, 1)) + encode("getTime"))


def test_a_block_proof_exists_only_of_the_block_itself() -> None:
    assert ask("getBlockProof", REQUESTS["getBlockProof"])["complete"] is True
    other = {**BLOCK, "seqno": 5, "root_hash": block_id(5).root_hash.hex(), "file_hash": block_id(5).file_hash.hex()}
    with pytest.raises(TonfsError, match="no validators"):
        ask("getBlockProof", {"mode": 1, "known_block": BLOCK, "target_block": other})


def test_a_shard_block_is_proved_by_the_masterchain_block_of_its_seqno() -> None:
    value = ask("getShardBlockProof", REQUESTS["getShardBlockProof"])
    assert value["masterchain_id"] == BLOCK
    assert [(link["id"], link["proof"]) for link in value["links"]] == [(SHARD_BLOCK, b"proof")]


def test_packets_of_the_tcp_level() -> None:
    assert lite_tl.parse_packet(bytes.fromhex("9a2b084d") + (5).to_bytes(8, "little")) == lite_tl.Ping(5)
    assert lite_tl.pong(-2) == bytes.fromhex("03fb69dc") + (-2).to_bytes(8, "little", signed=True)
    nonce = lite_tl.parse_packet(bytes.fromhex("12ab5b44") + b"\x20" + bytes(32) + bytes(3))
    assert nonce == lite_tl.Authentificate(bytes(32))
    assert lite_tl.authentification_nonce(b"\x01" * 32) == bytes.fromhex("b64a5de3") + b"\x20" + b"\x01" * 32 + bytes(3)
    done = lite_tl.parse_packet(bytes.fromhex("a69eadf7") + b"anything")
    assert isinstance(done, lite_tl.AuthentificationComplete)


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_any_payload_is_a_packet_or_bad(payload: bytes) -> None:
    _parses_or_bad(lite_tl.parse_packet, payload)


@given(st.sampled_from(sorted(REQUESTS)), st.data())
@settings(max_examples=400, deadline=None)
def test_a_damaged_request_is_a_request_or_bad(method: str, data: st.DataObject) -> None:
    good = bytearray(encode(method, REQUESTS[method]))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(good[: data.draw(st.integers(0, len(good)))])
    for candidate in (bytes(good), cut):
        _parses_or_bad(lite_tl.parse_request, candidate)


def _parses_or_bad(parse: Any, data: bytes) -> None:
    try:
        parse(data)
    except BadPacket:
        return
