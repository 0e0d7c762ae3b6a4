"""The life of a placement (one bag at one provider under one contract) as a table.

    wanted -> quoted -> funding -> active <-> suspect -> failed -> evicting -> gone

`advance` is pure; a transition that is not in the table is a bug and raises.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class State(StrEnum):
    WANTED = "wanted"
    QUOTED = "quoted"
    """Terms are agreed, no coin has moved."""
    FUNDING = "funding"
    """The contract lists the provider; it has not shown proof and data yet."""
    ACTIVE = "active"
    """Proof in time and audited data: the only state that counts as a replica."""
    SUSPECT = "suspect"
    FAILED = "failed"
    """Condemned by the auditor; still listed in the contract."""
    EVICTING = "evicting"
    """The message that removes it from the contract is on its way."""
    GONE = "gone"


class Event(StrEnum):
    QUOTE = "quote"
    LISTED = "listed"
    HEALTHY = "healthy"
    STRIKE = "strike"
    CONDEMN = "condemn"
    REMOVE = "remove"
    REMOVED = "removed"
    DROP = "drop"
    """A quote that came to nothing before any coin moved."""


TABLE: Final[dict[tuple[State, Event], State]] = {
    (State.WANTED, Event.QUOTE): State.QUOTED,
    (State.QUOTED, Event.LISTED): State.FUNDING,
    (State.QUOTED, Event.DROP): State.GONE,
    (State.FUNDING, Event.HEALTHY): State.ACTIVE,
    (State.FUNDING, Event.STRIKE): State.FUNDING,
    (State.FUNDING, Event.CONDEMN): State.FAILED,
    (State.FUNDING, Event.REMOVE): State.EVICTING,
    (State.ACTIVE, Event.HEALTHY): State.ACTIVE,
    (State.ACTIVE, Event.STRIKE): State.SUSPECT,
    (State.ACTIVE, Event.CONDEMN): State.FAILED,
    (State.ACTIVE, Event.REMOVE): State.EVICTING,
    (State.SUSPECT, Event.HEALTHY): State.ACTIVE,
    (State.SUSPECT, Event.STRIKE): State.SUSPECT,
    (State.SUSPECT, Event.CONDEMN): State.FAILED,
    (State.SUSPECT, Event.REMOVE): State.EVICTING,
    (State.FAILED, Event.REMOVE): State.EVICTING,
    (State.EVICTING, Event.REMOVED): State.GONE,
    (State.GONE, Event.QUOTE): State.QUOTED,
}

PAID: Final = frozenset({State.FUNDING, State.ACTIVE, State.SUSPECT})
"""Listed in the contract and meant to stay."""


class IllegalTransition(Exception):
    """The agent tried a step that the table does not know."""


def advance(state: State, event: Event) -> State:
    try:
        return TABLE[state, event]
    except KeyError:
        raise IllegalTransition(f"a placement in state {state} cannot take event {event}") from None
