"""Who is near which key: routing table and the state of one iterative lookup. Pure: no I/O, no clock.

Distance is the XOR of 32-byte ids read as big-endian numbers (reference protocol 4.3, 4.5).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from ..ids import AdnlId
from .dht_types import DhtNode

BUCKET_SIZE: Final = 10
MAX_FAILURES: Final = 3
"""Missed answers in a row before a node may be replaced."""


def distance(left: bytes, right: bytes) -> int:
    return int.from_bytes(left, "big") ^ int.from_bytes(right, "big")


@dataclass
class _Entry:
    node: DhtNode
    static: bool = False
    failures: int = 0
    answered: bool = False


class RoutingTable:
    """Nodes by distance from our own id, at most BUCKET_SIZE for each length of the common prefix.

    A full bucket takes a newcomer only in the place of a node that has failed. Static nodes (from the global config)
    are never dropped.
    """

    def __init__(self, own_id: bytes, static: Iterable[DhtNode] = (), bucket_size: int = BUCKET_SIZE) -> None:
        self._own = own_id
        self._size = bucket_size
        self._buckets: dict[int, dict[AdnlId, _Entry]] = {}
        for node in static:
            if node.id != own_id:
                self._bucket(node.id)[node.id] = _Entry(node, static=True)

    def _bucket(self, node_id: bytes) -> dict[AdnlId, _Entry]:
        return self._buckets.setdefault(distance(self._own, node_id).bit_length(), {})

    def _entry(self, node_id: AdnlId) -> _Entry | None:
        return self._buckets.get(distance(self._own, node_id).bit_length(), {}).get(node_id)

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self._buckets.values())

    def __contains__(self, node_id: AdnlId) -> bool:
        return self._entry(node_id) is not None

    def nodes(self) -> list[DhtNode]:
        return [entry.node for bucket in self._buckets.values() for entry in bucket.values()]

    def add(self, node: DhtNode) -> bool:
        """Take in a node whose signature was checked; a newer version replaces an older. False: there is no room."""
        if node.id == self._own:
            return False
        bucket = self._bucket(node.id)
        known = bucket.get(node.id)
        if known is not None:
            if node.version > known.node.version:
                known.node = node
            return True
        if len(bucket) >= self._size:
            worst = max(bucket.values(), key=lambda entry: (not entry.static, entry.failures))
            if worst.static or worst.failures < MAX_FAILURES:
                return False
            del bucket[worst.node.id]
        bucket[node.id] = _Entry(node)
        return True

    def answered(self, node_id: AdnlId) -> None:
        entry = self._entry(node_id)
        if entry is not None:
            entry.failures, entry.answered = 0, True

    def failed(self, node_id: AdnlId) -> None:
        entry = self._entry(node_id)
        if entry is not None:
            entry.failures += 1

    def nearest(self, key: bytes, count: int) -> list[DhtNode]:
        """Up to `count` nodes in order of distance; those that keep failing only when there is nobody else."""
        entries = [entry for bucket in self._buckets.values() for entry in bucket.values()]
        good = [entry.node for entry in entries if entry.failures < MAX_FAILURES]
        chosen = heapq.nsmallest(count, good, key=lambda node: distance(node.id, key))
        if not chosen:
            failing = [entry.node for entry in entries]
            chosen = heapq.nsmallest(count, failing, key=lambda node: distance(node.id, key))
        return chosen

    def least_sure(self, count: int) -> list[DhtNode]:
        """Nodes worth a ping: those that failed lately or never answered come first."""
        entries = [entry for bucket in self._buckets.values() for entry in bucket.values()]
        doubtful = heapq.nlargest(count, entries, key=lambda entry: (entry.failures, not entry.answered))
        return [entry.node for entry in doubtful]

    def closer_than_us(self, key: bytes, at_most: int) -> int:
        """How many nodes that answered us are nearer to the key than we are; stops counting at `at_most`."""
        ours = distance(self._own, key)
        found = 0
        for bucket in self._buckets.values():
            for node_id, entry in bucket.items():
                if entry.answered and distance(node_id, key) < ours:
                    found += 1
                    if found >= at_most:
                        return found
        return found


class _State(Enum):
    NEW = auto()
    ASKED = auto()
    ANSWERED = auto()
    FAILED = auto()


@dataclass
class _Candidate:
    node: DhtNode
    state: _State = _State.NEW


class Lookup:
    """One iterative search for the nodes nearest to a key.

    Drive it: `take()` gives nodes to ask now, report each with `answered` or `failed`; over when `done`.
    Ends when the `width` nearest nodes that do not fail have all answered, or after `max_queries` questions.
    """

    def __init__(
        self,
        key: bytes,
        seeds: Iterable[DhtNode],
        *,
        width: int,
        parallel: int,
        own_id: bytes = b"",
        max_queries: int = 60,
    ) -> None:
        self.key = key
        self._width = width
        self._parallel = parallel
        self._own = own_id
        self._left = max_queries
        self._candidates: dict[AdnlId, _Candidate] = {}
        self._in_flight = 0
        self._add(seeds)

    def _add(self, nodes: Iterable[DhtNode]) -> None:
        for node in nodes:
            if node.id != self._own and node.id not in self._candidates:
                self._candidates[node.id] = _Candidate(node)

    def _front(self) -> list[_Candidate]:
        """The `width` nearest candidates that have not failed."""
        alive = [c for c in self._candidates.values() if c.state is not _State.FAILED]
        return heapq.nsmallest(self._width, alive, key=lambda c: distance(c.node.id, self.key))

    def take(self) -> list[DhtNode]:
        """Nodes to ask now, nearest first; they count as asked from here on."""
        chosen = []
        for candidate in self._front():
            if self._in_flight >= self._parallel or self._left <= 0:
                break
            if candidate.state is _State.NEW:
                candidate.state = _State.ASKED
                self._in_flight += 1
                self._left -= 1
                chosen.append(candidate.node)
        return chosen

    def answered(self, node_id: AdnlId, nearer: Iterable[DhtNode] = ()) -> None:
        """`nearer`: nodes from the answer, signatures checked."""
        self._finish(node_id, _State.ANSWERED)
        self._add(nearer)

    def failed(self, node_id: AdnlId) -> None:
        self._finish(node_id, _State.FAILED)

    def _finish(self, node_id: AdnlId, state: _State) -> None:
        candidate = self._candidates[node_id]
        if candidate.state is _State.ASKED:
            self._in_flight -= 1
        candidate.state = state

    @property
    def done(self) -> bool:
        if self._in_flight:
            return False
        return self._left <= 0 or all(c.state is not _State.NEW for c in self._front())

    @property
    def answers(self) -> int:
        """How many nodes answered at all. None: nothing is known, not even that the key is absent."""
        return sum(c.state is _State.ANSWERED for c in self._candidates.values())

    def result(self) -> list[DhtNode]:
        """The nearest nodes that answered, at most `width`."""
        good = [c.node for c in self._candidates.values() if c.state is _State.ANSWERED]
        return heapq.nsmallest(self._width, good, key=lambda node: distance(node.id, self.key))
