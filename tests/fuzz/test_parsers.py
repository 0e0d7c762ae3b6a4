"""Parsers meet noise, and good examples with a few bytes changed, cut or doubled."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .targets import TARGETS, Target

MOST_MEMORY = 8 << 20
"""Bytes a parser may take for an input of at most a few hundred."""


@st.composite
def _inputs(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    if not seeds or draw(st.integers(0, 4)) == 0:
        return draw(st.binary(max_size=300))
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif kind == 1:  # lengths and counts that lie
            data[at : at + 4] = draw(st.sampled_from([b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80", bytes(4)]))
        elif kind == 2:
            del data[at:]
        else:
            data[at:at] = data[at : at + draw(st.integers(1, 64))]
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes_is_parsed_or_refused_with_the_error_of_its_format(name: str) -> None:
    target = TARGETS[name]

    @settings(max_examples=60)
    @given(_inputs(target.seeds))
    def feed(data: bytes) -> None:
        target(data)

    feed()


@pytest.mark.parametrize("name", TARGETS)
def test_the_examples_are_good_ones(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].parse(seed)


def _hungry(target: Target) -> int:
    """The most memory that any lie about a length makes it take."""
    worst = 0
    for seed in target.seeds:
        for at in range(0, min(len(seed), 600), 3):
            data = seed[:at] + b"\xff\xff\xff\x7f" + seed[at + 4 :]
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            target(data)
            worst = max(worst, tracemalloc.get_traced_memory()[1] - before)
    return worst


@pytest.mark.parametrize("name", TARGETS)
def test_a_lie_about_a_length_costs_no_memory(name: str) -> None:
    tracemalloc.start()
    try:
        assert _hungry(TARGETS[name]) < MOST_MEMORY
    finally:
        tracemalloc.stop()
