"""Arithmetic in GF(256), the field of RaptorQ (RFC 6330 section 5.7), on octets and on whole symbols.

`mix` and `solve_lost` do in Python what `_fast/symbols.c` does, with the same bytes. Symbols are integers here, so that
adding two is one XOR of 768 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, reduce
from itertools import compress
from operator import xor
from typing import Final


def _octet_tables() -> tuple[list[int], list[int]]:
    """Powers of alpha and logarithms in GF(256) with x^8 + x^4 + x^3 + x^2 + 1."""
    powers, logs, value = [0] * 510, [0] * 256, 1
    for exponent in range(255):
        powers[exponent] = powers[exponent + 255] = value
        logs[value] = exponent
        value = value << 1 ^ (0x11D if value & 0x80 else 0)
    return powers, logs


EXP, LOG = _octet_tables()


@lru_cache(maxsize=256)
def times(factor: int) -> bytes:
    """Translation table that multiplies every octet of a string by `factor`."""
    return bytes([0] + [EXP[LOG[factor] + LOG[octet]] if factor else 0 for octet in range(1, 256)])


_BITS: Final = tuple(bytes(octet >> bit & 1 for octet in range(256)) for bit in range(7, -1, -1))
"""Translation tables that pick one bit of every octet, the highest first."""


@lru_cache(maxsize=4)
def _masks(size: int) -> tuple[int, int]:
    """The lower seven bits, and the lowest bit, of every octet of a symbol."""
    return int.from_bytes(b"\x7f" * size, "little"), int.from_bytes(b"\x01" * size, "little")


def _sum(row: bytes, symbols: Sequence[int], size: int, start: int = 0) -> int:
    """`start` plus row[i] times symbols[i]: a factor is the sum of its bits, so one plain sum for each of the eight."""
    low, ones = _masks(size)
    total = 0
    for table in _BITS:
        doubled = (total & low) << 1 ^ (total >> 7 & ones) * 0x1D
        total = reduce(xor, compress(symbols, row.translate(table)), doubled)
    return total ^ start


def mix(rows: bytes, k: int, data: bytes, size: int) -> bytes:
    """Sums of the k source symbols of `size` bytes in `data` (zeros behind its end); `rows`: k factors for each sum."""
    symbols = [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)]
    sums = (_sum(rows[at : at + k], symbols, size) for at in range(0, len(rows), k))
    return b"".join(one.to_bytes(size, "little") for one in sums)


def solve_lost(
    rows: bytes, symbols: Sequence[int], lost: Sequence[int], extra: Sequence[bytes], size: int
) -> list[int] | None:
    """The lost ones of the source symbols, in the order of their numbers `lost`; None if `extra` does not suffice.

    `symbols`: all of them, 0 for those lost. `rows`: of each of the extra symbols the factors of all source symbols
    whose sum it is.
    """
    k = len(symbols)
    solved: list[tuple[int, bytes]] = []  # (column, its row of the reduced system; behind it the sum it was made of)
    chosen: list[int] = []
    width = 2 * len(lost)
    for number in range(len(extra)):
        if len(solved) == len(lost):
            break
        row = bytearray(rows[number * k + column] for column in lost) + bytes(len(lost))
        row[len(lost) + len(solved)] = 1
        value = int.from_bytes(row, "little")
        for column, other in solved:
            value ^= int.from_bytes(other.translate(times(row[column])), "little")
        reduced = value.to_bytes(width, "little")
        pivot = next((column for column in range(len(lost)) if reduced[column]), -1)
        if pivot < 0:
            continue
        reduced = reduced.translate(times(EXP[255 - LOG[reduced[pivot]]]))
        solved = [
            (column, _plus(other, reduced.translate(times(other[pivot]))) if other[pivot] else other)
            for column, other in solved
        ]
        solved.append((pivot, reduced))
        chosen.append(number)
    if len(solved) < len(lost):
        return None
    rest = [
        _sum(rows[number * k : number * k + k], symbols, size, int.from_bytes(extra[number], "little"))
        for number in chosen
    ]
    return [_sum(row[len(lost) :], rest, size) for _, row in sorted(solved)]


def _plus(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "little") ^ int.from_bytes(other, "little")).to_bytes(len(one), "little")
