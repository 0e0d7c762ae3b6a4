"""The table of a placement's life."""

from __future__ import annotations

import itertools

import pytest

from tonfs.agent.placement import PAID, TABLE, Event, IllegalTransition, State, advance


def test_a_placement_lives_from_quote_to_gone() -> None:
    state = State.WANTED
    seen = []
    for event in (Event.QUOTE, Event.LISTED, Event.HEALTHY, Event.STRIKE, Event.CONDEMN, Event.REMOVE, Event.REMOVED):
        state = advance(state, event)
        seen.append(state.value)
    assert seen == ["quoted", "funding", "active", "suspect", "failed", "evicting", "gone"]


def test_only_what_the_table_names_is_possible() -> None:
    for state, event in itertools.product(State, Event):
        if (state, event) not in TABLE:
            with pytest.raises(IllegalTransition):
                advance(state, event)


def test_a_failed_placement_is_never_paid_again_without_a_new_quote() -> None:
    reachable = {State.FAILED}
    while True:
        more = {to for (state, event), to in TABLE.items() if state in reachable and event is not Event.QUOTE}
        if more <= reachable:
            break
        reachable |= more
    assert not reachable & PAID


def test_active_is_entered_only_by_a_healthy_audit() -> None:
    assert {event for (_, event), to in TABLE.items() if to is State.ACTIVE} == {Event.HEALTHY}


def test_nobody_is_paid_who_was_not_quoted_and_listed() -> None:
    assert {step for step, to in TABLE.items() if to in PAID and step[0] not in PAID} == {(State.QUOTED, Event.LISTED)}
