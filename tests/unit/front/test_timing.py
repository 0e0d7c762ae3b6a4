from __future__ import annotations

from tonfs.front.timing import BUSY_LOOKS, CommitTiming


def test_a_change_on_a_quiet_mount_is_committed_at_once() -> None:
    timing = CommitTiming()
    assert timing.due(True, busy=False, sent=False)


def test_nothing_pending_needs_no_commit() -> None:
    timing = CommitTiming()
    assert not timing.due(False, busy=False, sent=True)


def test_a_busy_mount_is_left_alone_for_a_while() -> None:
    timing = CommitTiming()
    looks = [timing.due(True, busy=True, sent=False) for _ in range(2 * BUSY_LOOKS)]
    assert looks == ([False] * (BUSY_LOOKS - 1) + [True]) * 2


def test_a_change_waits_from_when_it_was_seen() -> None:
    timing = CommitTiming()
    for _ in range(BUSY_LOOKS):
        timing.due(False, busy=True, sent=False)
    assert not timing.due(True, busy=True, sent=False)


def test_what_the_kernel_held_does_not_wait_again() -> None:
    timing = CommitTiming()
    assert timing.due(True, busy=True, sent=True)
