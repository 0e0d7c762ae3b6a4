"""What the user wants of a volume, as plain values: packing, replicas, audits, deadlines.

Durations are seconds, sizes bytes, coins nanoTON. Defaults suit a real network; `devnet_defaults` the rehearsal.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from typing import Final

from .errors import Unsupported, UsageError


@dataclass(frozen=True)
class PackPolicy:
    """When a file is packed, and how large a pack (one bag) grows."""

    settle: float = 30.0
    """A file is packed once nothing changed in it for this long."""
    deadline: float = 600.0
    """A pack is sealed, full or not, when its oldest file has waited this long."""
    target_size: int = 32 << 20
    """A pack is sealed when it holds this many bytes; larger files are split over packs."""


@dataclass(frozen=True)
class ReplicaPolicy:
    """How many copies, and on what terms."""

    replicas: int = 5
    span: int = 7 * 86400
    """Wanted proof period; clipped to what a provider offers, who is not hired when that is over 8 times off."""
    fund_spans: int = 4
    """A contract is funded for this many full-span bounties of each provider."""
    max_rate: int = 10_000_000
    """Highest accepted price, nanoTON per MB and day, before the network's minimum bounty is made up for."""
    start_deadline: float = 3600.0
    """A fresh placement must show its first proof within this time, else it has failed."""
    avoid_failed: float = 7 * 86400.0
    """A provider that failed is not hired again for this long; twice as long after each further failure."""


@dataclass(frozen=True)
class AuditPolicy:
    """How often providers are asked for data, and when silence becomes failure."""

    interval: float = 6 * 3600.0
    pieces: int = 3
    """Random pieces fetched from that very provider in one audit."""
    timeout: float = 20.0
    """Longest wait for one piece."""
    retry: float = 600.0
    """Pause before a suspect is asked again."""
    strikes: int = 4
    """Silent audits in a row, the first one included, that make a placement failed. Wrong data needs two."""
    proof_margin: float = 3600.0
    """How late after its span an on-chain proof may be."""


@dataclass(frozen=True)
class Policy:
    pack: PackPolicy = PackPolicy()
    replica: ReplicaPolicy = ReplicaPolicy()
    audit: AuditPolicy = AuditPolicy()


def devnet_defaults() -> Policy:
    """Short times, so that a person sees the whole life of a file within a minute."""
    return Policy(
        pack=replace(PackPolicy(), settle=2.0, deadline=5.0, target_size=16 << 20),
        replica=replace(ReplicaPolicy(), span=86400, start_deadline=300.0, avoid_failed=120.0),
        audit=replace(AuditPolicy(), interval=30.0, timeout=5.0, retry=3.0, strikes=3),
    )


# Policies of single directories and files.

PATH_POLICY_PREFIX: Final = "user.tonfs.policy."
"""A policy of a path is this extended attribute; directories hand it down."""
PATH_POLICIES: Final = ("pin", "replicas")
"""pin: `true` keeps the local copy of everything below for ever. replicas: how many providers shall hold it."""
MAX_REPLICAS: Final = 100
_PLANNED: Final = ("max-price", "deadline", "public")
_NUMBER: Final = re.compile(r"[0-9]{1,4}")
_WORDS: Final = {"true": "true", "yes": "true", "1": "true", "false": "false", "no": "false", "0": "false"}


def check_path_policy(name: str) -> None:
    """Raises UsageError (there is no such policy), Unsupported (nobody obeys it yet)."""
    if name in _PLANNED:
        raise Unsupported(f"The policy {name!r} cannot be set for a path yet, only for the volume.",
                          hint="Set it in config.toml ('tonfs config show' lists what there is).")  # fmt: skip
    if name not in PATH_POLICIES:
        near = difflib.get_close_matches(name, [*PATH_POLICIES, *_PLANNED], n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"There is: {', '.join(PATH_POLICIES)}."
        raise UsageError(f"There is no policy {name!r}.", hint=hint)


def path_policy(name: str, text: str) -> str:
    """The value as it is kept. Raises UsageError, Unsupported."""
    check_path_policy(name)
    if name == "replicas":
        if not _NUMBER.fullmatch(text.strip()) or not 1 <= int(text) <= MAX_REPLICAS:
            raise UsageError(f"The policy replicas is a number from 1 to {MAX_REPLICAS}, not {text!r}.")
        return str(int(text))
    value = _WORDS.get(text.strip().lower())
    if value is None:
        raise UsageError(f"The policy {name} is true or false, not {text!r}.")
    return value
