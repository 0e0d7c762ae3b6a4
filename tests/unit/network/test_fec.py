"""RaptorQ as TON speaks it. The hashes were printed by TON's C++ code and by xssnick/raptorq 1.3.0 alike (the last two
by the latter only)."""

from __future__ import annotations

import random
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tonfs.network import fec, raptor
from tonfs.network.fec import SYMBOL, PartDecoder, SymbolSource
from tonfs.network.lane import mix

TON_SYMBOLS = {
    8: ("0c37f3c95f29", "a1df599faaec"),
    49: ("1fe1d9edeede", "0323dbcb7f6e"),
    55: ("30ee0786eb22", "b74981ebf461"),
    75: ("f8893d57b36a", "54573e5602bc"),
    119: ("98d94e3903b5", "2f3492c6f1a5"),
    172: ("0da0847702b5", "ea8b426e89bd"),
    342: ("38d1f438a3c5", "1b97d02fa084"),
    405: ("da46f8b7a622", "5e0eb4ef17d4"),
    563: ("cf1cfa25b3cb", "803af6d97c82"),
    1420: ("2bcec0d15edf", "908fd37892e0"),
    2528: ("85c157697d08", "810b9acfe02a"),
}


def pattern(size: int) -> bytes:
    return bytes((i * 7 + (i >> 8)) & 255 for i in range(size))


@pytest.mark.parametrize("k", TON_SYMBOLS)
def test_repair_symbols_are_those_of_ton(k: int) -> None:
    source = SymbolSource(pattern(k * SYMBOL))
    assert tuple(sha256(source.symbol(k + n)).hexdigest()[:12] for n in (0, 5)) == TON_SYMBOLS[k]


def test_sizes_where_ton_departs_from_the_rfc() -> None:
    departing = [k for k in range(1, 2738) if raptor.departs(k)]
    assert {49, 55, 63, 75, 115, 127, 341, 342, 355} <= set(departing)
    assert not {1, 48, 56, 62, 171, 172, 173, 2605} & set(departing)
    with pytest.raises(ValueError, match="2738"):
        raptor.parameters(2738)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 150).filter(lambda k: not raptor.departs(k)), st.integers(0, 20), st.integers(0, 1 << 32))
def test_our_codec_and_the_wheel_agree_where_ton_keeps_to_the_rfc(k: int, number: int, seed: int) -> None:
    data = random.Random(seed).randbytes(k * SYMBOL)
    block = raptor.solve(k, {n: data[n * SYMBOL : (n + 1) * SYMBOL] for n in range(k)}, SYMBOL)
    assert block is not None
    assert block.symbol(raptor.parameters(k).k + number) == SymbolSource(data).symbol(k + number)
    assert block.symbol(k - 1) == data[-SYMBOL:]


@pytest.mark.parametrize("k", [1, 49, 172, 342, 405, 2528])
@pytest.mark.parametrize("loss", [0.01, 0.3, 1.0])
def test_lost_symbols_are_replaced_by_repair_symbols(k: int, loss: float) -> None:
    rng = random.Random(k)
    data = rng.randbytes(k * SYMBOL - 5)
    source, decoder = SymbolSource(data), PartDecoder(len(data))
    for esi in rng.sample(range(k), max(0, int(k * (1 - loss)))):
        decoder.add(esi, source.symbol(esi))
    esi = k + 3
    while decoder.data is None:
        decoder.add(esi, source.symbol(esi))
        esi += 1
    assert decoder.data == data
    assert decoder.received <= k + 3


def test_too_few_symbols_decide_nothing() -> None:
    data = pattern(60 * SYMBOL)
    assert raptor.solve(60, {n: data[n * SYMBOL : (n + 1) * SYMBOL] for n in range(59)}, SYMBOL) is None


def test_dependent_symbols_wait_for_more() -> None:
    """About one set of exactly K repair symbols in a hundred cannot be solved; one more symbol helps."""
    rng = random.Random(4)
    data = rng.randbytes(10 * SYMBOL)
    source = SymbolSource(data)
    stuck = 0
    for _ in range(300):
        chosen = rng.sample(range(10, 4000), 14)
        found = [raptor.solve(10, {esi: _symbol(source, esi) for esi in chosen[:n]}, SYMBOL) for n in range(10, 15)]
        stuck += found[0] is None
        assert found[-1] is not None
        assert b"".join(found[-1].symbol(n) for n in range(10)) == data
    assert 0 < stuck < 30


_blocks: dict[int, raptor.Block] = {}


def _symbol(source: SymbolSource, esi: int) -> bytes:
    block = _blocks.get(id(source))
    if block is None:
        made = raptor.solve(10, {n: source.symbol(n) for n in range(10)}, SYMBOL)
        assert made is not None
        block = _blocks[id(source)] = made
    return block.symbol(esi)


@pytest.mark.parametrize("k", [55, 60])
@pytest.mark.parametrize("sources", [0, 50])
def test_dependent_symbols_cannot_make_us_solve_for_each_of_them(
    k: int, sources: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether few symbols are lost (a small system) or many (the whole one)."""
    tries: list[int] = []
    decoder = PartDecoder(k * SYMBOL)

    def in_vain(*arguments: object) -> bytes:
        tries.append(decoder.received)
        return bytes(k * (decoder.received - sources))

    monkeypatch.setattr(fec, "_FEW", (20, 20))
    monkeypatch.setattr(fec, "_rows", in_vain)
    monkeypatch.setattr(PartDecoder, "_decode", lambda self: tries.append(self.received))
    for esi in [*range(sources), *range(k, 3 * k)]:
        decoder.add(esi, bytes(SYMBOL))
    assert tries == [n for n in (k + (1 << i) - 1 for i in range(8)) if n <= decoder.received]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(1, 200), st.integers(0, 300))
def test_a_symbol_is_the_sum_of_source_symbols_by_its_factors(k: int, number: int) -> None:
    data = random.Random(k).randbytes(k * SYMBOL)
    block = raptor.solve(k, {n: data[n * SYMBOL : (n + 1) * SYMBOL] for n in range(k)}, SYMBOL)
    assert block is not None
    row = raptor.factors(k, k + number)
    assert len(row) == k
    assert mix(row, k, data) == block.symbol(raptor.parameters(k).k + number)
    source = number % k
    assert raptor.factors(k, source) == bytes(n == source for n in range(k))


@pytest.mark.parametrize("k", [60, 172, 342, 700])
def test_a_small_system_and_the_whole_one_give_the_same(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random.Random(k).randbytes(k * SYMBOL - 700)
    found = []
    for few in ((0, 0), (96, 96)):
        monkeypatch.setattr(fec, "_FEW", few)
        source, decoder = SymbolSource(data), PartDecoder(len(data))
        assert decoder.k == k
        symbols = [source.symbol(esi) for esi in range(k + 20)]
        for esi in [n for n in range(k + 20) if n % (k // 12) != 3]:
            decoder.add(esi, symbols[esi])
        found.append((decoder.received, symbols, decoder.data))
    assert found[0] == found[1]
    assert found[0][2] == data
