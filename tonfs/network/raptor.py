"""RaptorQ as TON speaks it, also for the block sizes where it departs from RFC 6330.

The RFC takes for P1 the smallest prime *not below* P. TON's own code (C++ and, after it, Go) takes the smallest prime
*above* P. Wherever P is a prime itself, repair symbols differ, and a codec that follows the RFC, such as the
`raptorq` wheel, decodes TON's symbols to wrong bytes without noticing. That is so for 47 of the 194 sizes K' that
occur here, among them those of 256 KiB pieces. This module is a codec with TON's P1.

`factors` says of which source symbols a repair symbol is the sum: with that, few lost symbols are the unknowns of a
small system. `solve` takes any set of symbols, at the price of the whole system.

Symbols are Python integers, so that adding two is one XOR of 768 bytes. A row of the system is one integer, too: its
symbol, and above it one octet for each inactive column. Solving costs about 5 ms for 340 symbols, 60 ms for 2500.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from .octets import EXP, LOG, times
from .raptor_tables import PARAMETERS, V0, V1, V2, V3

_DEGREES: Final = (
    5243, 529531, 704294, 791675, 844104, 879057, 904023, 922747, 937311, 948962, 958494, 966438, 973160, 978921,
    983914, 988283, 992138, 995565, 998631, 1001391, 1003887, 1006157, 1008229, 1010129, 1011876, 1013490, 1014983,
    1016370, 1017662, 1048576,
)  # fmt: skip
"""RFC 6330 section 5.3.5.2."""


def _random(y: int, i: int, m: int) -> int:
    """Rand[y, i, m] of section 5.3.5.1."""
    return (V0[(y + i) & 255] ^ V1[((y >> 8) + i) & 255] ^ V2[((y >> 16) + i) & 255] ^ V3[((y >> 24) + i) & 255]) % m


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


class Parameters(NamedTuple):
    """Of one size K' (section 5.3.3.3), with TON's P1."""

    k: int
    j: int
    s: int
    h: int
    w: int
    p: int
    p1: int


@lru_cache(maxsize=64)
def parameters(symbols: int) -> Parameters:
    """The smallest K' that holds so many source symbols. Raises ValueError above 2737."""
    for k, j, s, h, w in PARAMETERS:
        if k >= symbols:
            total = k + s + h
            p1 = total - w + 1
            while not _is_prime(p1):
                p1 += 1
            return Parameters(k, j, s, h, w, total - w, p1)
    raise ValueError(f"no RaptorQ parameters for {symbols} symbols")


@lru_cache(maxsize=4096)
def departs(symbols: int) -> bool:
    """Do TON's repair symbols differ from the RFC's for a block of so many source symbols?"""
    return _is_prime(parameters(symbols).p)


@lru_cache(maxsize=16384)
def _columns(code: Parameters, isi: int) -> tuple[int, ...]:
    """Intermediate symbols whose sum is the symbol with this internal id (sections 5.3.5.3 and 5.3.5.4)."""
    step = 53591 + code.j * 997
    y = (10267 * (code.j + 1) + isi * (step | 1)) & 0xFFFFFFFF
    v = _random(y, 0, 1 << 20)
    degree = min(next(d for d, limit in enumerate(_DEGREES, 1) if v < limit), code.w - 2)
    a, b = 1 + _random(y, 1, code.w - 1), _random(y, 2, code.w)
    found = []
    for _ in range(degree):
        found.append(b)
        b = (b + a) % code.w
    more = 2 + _random(isi, 3, 2) if degree < 4 else 2
    a, b = 1 + _random(isi, 4, code.p1 - 1), _random(isi, 5, code.p1)
    for _ in range(more):
        while b >= code.p:
            b = (b + a) % code.p1
        found.append(code.w + b)
        b = (b + a) % code.p1
    return tuple(found)


@lru_cache(maxsize=8)
def _ldpc_rows(code: Parameters) -> tuple[tuple[int, ...], ...]:
    """The S sparse constraints whose sum is zero (section 5.3.3.3)."""
    border = code.w - code.s
    rows: list[list[int]] = [[border + i, code.w + i % code.p, code.w + (i + 1) % code.p] for i in range(code.s)]
    for i in range(border):
        step, at = 1 + i // code.s, i % code.s
        for _ in range(3):
            rows[at].append(i)
            at = (at + step) % code.s
    return tuple(map(tuple, rows))


class _Solver:
    """Gaussian elimination with inactivation: peel what can be peeled, solve a small dense rest."""

    def __init__(self, code: Parameters, symbols: Mapping[int, int], bits: int) -> None:
        self._code = code
        self._bits = bits
        self.inactive: dict[int, int] = {code.w + n: n for n in range(code.p)}
        """column -> number of its octet"""
        self._rows: list[tuple[int, ...]] = [*_ldpc_rows(code), *(_columns(code, isi) for isi in symbols)]
        values = [0] * code.s + list(symbols.values())
        self._values = [
            value ^ sum(1 << bits + 8 * (column - code.w) for column in row if column >= code.w)
            for row, value in zip(self._rows, values, strict=True)
        ]
        self.peeled: dict[int, int] = {}
        """column -> row value whose only active column it was"""

    def run(self) -> list[int] | None:
        """Values of the inactive columns, or None if the symbols do not determine the block."""
        rest = self._peel()
        return self._solve_dense(rest, self._hdpc_rows())

    def _peel(self) -> list[int]:
        """Give every column below W a row of its own or make it inactive; returns the values of rows left over."""
        w = self._code.w
        users: list[list[int]] = [[] for _ in range(w)]
        degree, which = [0] * len(self._rows), [0] * len(self._rows)  # active columns left: how many, their XOR
        for number, row in enumerate(self._rows):
            for column in row:
                if column < w:
                    users[column].append(number)
                    degree[number] += 1
                    which[number] ^= column
        values, peeled, inactive = self._values, self.peeled, self.inactive
        ready = [number for number, left in enumerate(degree) if left == 1]
        used: set[int] = set()
        by_degree = sorted(range(len(degree)), key=degree.__getitem__)
        while len(peeled) + len(inactive) < w + self._code.p:
            while ready:
                number = ready.pop()
                if degree[number] != 1:
                    continue
                column, value = which[number], values[number]
                peeled[column] = value
                used.add(number)
                degree[number] = 0
                for other in users[column]:
                    if other != number:
                        values[other] ^= value
                        which[other] ^= column
                        degree[other] -= 1
                        if degree[other] == 1:
                            ready.append(other)
            column = self._choose(degree, by_degree)
            if column < 0:
                break
            octet = inactive[column] = len(inactive)
            for other in users[column]:
                values[other] ^= 1 << self._bits + 8 * octet
                which[other] ^= column
                degree[other] -= 1
                if degree[other] == 1:
                    ready.append(other)
        for column in range(w):
            if column not in peeled:
                inactive.setdefault(column, len(inactive))
        return [value for number, value in enumerate(values) if number not in used]

    def _choose(self, degree: list[int], by_degree: list[int]) -> int:
        """A column to make inactive: of the row with the fewest active ones; -1 if no row has any."""
        best, least = -1, 1 << 30
        for number in by_degree:
            if 0 < degree[number] < least:
                best, least = number, degree[number]
                if least == 2:
                    break
        if best < 0:
            return -1
        return next(c for c in self._rows[best] if c < self._code.w and c not in self.peeled and c not in self.inactive)

    def _hdpc_rows(self) -> list[int]:
        """The H dense constraints (section 5.3.3.3) in terms of inactive columns, each with sum zero."""
        code, bits, inactive, peeled = self._code, self._bits, self.inactive, self.peeled
        size = bits // 8 + len(inactive)
        one, double = 1 << bits, times(2)
        rows = [0] * code.h
        total = 0
        width = code.k + code.s
        for column in range(width):
            own = peeled[column] if column in peeled else one << 8 * inactive[column]
            total = int.from_bytes(total.to_bytes(size, "little").translate(double), "little") ^ own
            if column + 1 < width:
                first = _random(column + 1, 6, code.h)
                rows[first] ^= total
                rows[(first + _random(column + 1, 7, code.h - 1) + 1) % code.h] ^= total
        last = total.to_bytes(size, "little")
        for i in range(code.h):
            rows[i] ^= int.from_bytes(last.translate(times(EXP[i % 255])), "little")
            rows[i] ^= one << 8 * inactive[width + i]
        return rows

    def _solve_dense(self, binary: list[int], dense: list[int]) -> list[int] | None:
        """Gauss-Jordan over the inactive columns; binary rows first, they are cheaper."""
        bits = self._bits
        count = len(self.inactive)
        pivots: dict[int, int] = {}
        rows = [row for row in binary if row >> bits]
        for number in range(count):
            mask = 1 << bits + 8 * number
            at = next((i for i, row in enumerate(rows) if row & mask), -1)
            if at < 0:
                continue
            rows[at], rows[-1] = rows[-1], rows[at]
            pivot = rows.pop()
            for i, row in enumerate(rows):
                if row & mask:
                    rows[i] = row ^ pivot
            for other, row in pivots.items():
                if row & mask:
                    pivots[other] = row ^ pivot
            pivots[number] = pivot
        open_columns = [number for number in range(count) if number not in pivots]
        if len(open_columns) > len(dense):
            return None
        return self._solve_octets(pivots, dense, open_columns)

    def _solve_octets(self, pivots: dict[int, int], dense: list[int], open_columns: list[int]) -> list[int] | None:
        bits = self._bits
        size = bits // 8 + len(self.inactive)

        def multiply(row: int, factor: int) -> int:
            return int.from_bytes(row.to_bytes(size, "little").translate(times(factor)), "little") if factor else 0

        for i, row in enumerate(dense):
            for number, pivot in pivots.items():
                row ^= multiply(pivot, row >> bits + 8 * number & 255)
            dense[i] = row
        for number in open_columns:
            shift = bits + 8 * number
            at = next((i for i, row in enumerate(dense) if row >> shift & 255), -1)
            if at < 0:
                return None
            pivot = dense.pop(at)
            pivot = multiply(pivot, EXP[255 - LOG[pivot >> shift & 255]])
            dense = [row ^ multiply(pivot, row >> shift & 255) for row in dense]
            for other, row in pivots.items():
                pivots[other] = row ^ multiply(pivot, row >> shift & 255)
            pivots[number] = pivot
        symbol = (1 << bits) - 1
        return [pivots[number] & symbol for number in range(len(self.inactive))]


class Block:
    """A solved block: any symbol of it. Make it with `solve`."""

    def __init__(self, code: Parameters, symbol_size: int, peeled: dict[int, int], known: dict[int, int]) -> None:
        self._code = code
        self._size = symbol_size
        self._peeled = peeled
        self._known = known
        self._order = list(known)

    def _intermediate(self, column: int) -> int:
        """Value of one intermediate symbol; those that were peeled are worked out when asked for."""
        value = self._known.get(column)
        if value is None:
            row = self._peeled[column]
            bits = self._size * 8
            value = row & (1 << bits) - 1
            octets = (row >> bits).to_bytes(len(self._order), "little")
            at = octets.find(1)
            while at >= 0:
                value ^= self._known[self._order[at]]
                at = octets.find(1, at + 1)
            self._known[column] = value
        return value

    def symbol(self, isi: int) -> bytes:
        """The symbol with this internal id (source symbols first, padding up to K', then repair)."""
        value = 0
        for column in _columns(self._code, isi):
            value ^= self._intermediate(column)
        return value.to_bytes(self._size, "little")


def solve(k: int, symbols: Mapping[int, bytes], symbol_size: int) -> Block | None:
    """Solve a block of `k` source symbols from symbols by ESI. None: more are needed.

    Source symbols have the ESIs 0..k-1; repair symbols follow (reference protocol 3.6).
    """
    code = parameters(k)
    padding = code.k - k
    given = {esi if esi < k else esi + padding: int.from_bytes(data, "little") for esi, data in symbols.items()}
    given.update((isi, 0) for isi in range(k, code.k))
    if len(given) < code.k:
        return None
    solver = _Solver(code, given, symbol_size * 8)
    values = solver.run()
    if values is None:
        return None
    return Block(code, symbol_size, solver.peeled, {column: values[n] for column, n in solver.inactive.items()})


@lru_cache(maxsize=32)
def _unit_block(code: Parameters) -> Block:
    """The block whose source symbols are unit vectors: its symbols are rows of the code's matrix."""
    block = solve(code.k, {n: (1 << 8 * n).to_bytes(code.k, "little") for n in range(code.k)}, code.k)
    assert block is not None  # the source symbols always determine the block
    return block


@lru_cache(maxsize=4096)
def _factors(code: Parameters, isi: int) -> bytes:
    return _unit_block(code).symbol(isi)


def factors(k: int, esi: int) -> bytes:
    """The symbol `esi` of a block of `k` source symbols is their sum, each times one of these k octets.

    The first call for a size K' takes as long as `solve`.
    """
    code = parameters(k)
    return _factors(code, esi if esi < k else esi + code.k - k)[:k]
