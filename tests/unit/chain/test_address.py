"""Every usual written form of an address."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core import Address as PyAddress

from tonfs.chain.address import friendly, join, parse, parse_address, split
from tonfs.errors import UsageError

RAW = "0:" + "ab" * 31 + "cd"


@pytest.mark.parametrize("bounceable", [True, False])
@pytest.mark.parametrize("test_only", [True, False])
@pytest.mark.parametrize("url_safe", [True, False])
@pytest.mark.parametrize("workchain", [0, -1])
def test_every_friendly_form_that_pytoniq_writes_is_read(
    bounceable: bool, test_only: bool, url_safe: bool, workchain: int
) -> None:
    raw = f"{workchain}:{'fb' * 32}"
    text = PyAddress(raw).to_str(is_bounceable=bounceable, is_test_only=test_only, is_url_safe=url_safe)
    parsed = parse(text)
    assert parsed == (raw, bounceable, test_only)
    if url_safe:
        assert friendly(parsed.address, bounceable=bounceable, test_only=test_only) == text


def test_raw_forms_are_read_in_any_case_and_with_blanks_around() -> None:
    assert parse_address(f"  {RAW.upper()} ") == RAW
    assert parse_address("-1:" + "0" * 64) == "-1:" + "0" * 64


@pytest.mark.parametrize("text", ["", "0:12", "1:" + "0" * 64, "EQ", "EQ" + "A" * 46, "hello" * 10, "0:" + "g" * 64])
def test_what_is_no_address_is_refused_with_a_hint_or_reason(text: str) -> None:
    with pytest.raises(UsageError):
        parse_address(text)


def test_one_wrong_character_is_noticed() -> None:
    text = friendly(parse_address(RAW))
    broken = text[:10] + ("A" if text[10] != "A" else "B") + text[11:]
    with pytest.raises(UsageError, match="checksum"):
        parse_address(broken)


@given(st.binary(min_size=32, max_size=32), st.sampled_from([0, -1]), st.booleans(), st.booleans())
def test_writing_and_reading_are_inverse(account: bytes, workchain: int, bounceable: bool, test_only: bool) -> None:
    address = join(workchain, account)
    assert split(address) == (workchain, account)
    assert parse(friendly(address, bounceable=bounceable, test_only=test_only)) == (address, bounceable, test_only)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        parse(text)
