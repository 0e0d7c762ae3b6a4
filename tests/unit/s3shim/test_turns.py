"""The door's thread makes room for the mount."""

from __future__ import annotations

import pytest

from tonfs.s3shim import turns
from tonfs.s3shim.turns import LONGEST, PAUSE, Turns


class Thread:
    """Time of a thread, and how it slept."""

    def __init__(self) -> None:
        self.worked = 0.0
        self.pauses: list[float] = []

    def thread_time(self) -> float:
        return self.worked

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


@pytest.fixture
def thread(monkeypatch: pytest.MonkeyPatch) -> Thread:
    made = Thread()
    monkeypatch.setattr(turns, "time", made)
    return made


def test_work_beside_a_busy_mount_is_followed_by_a_longer_pause(thread: Thread) -> None:
    share = Turns(lambda: True)
    share.take()
    thread.worked += 0.0005
    share.take()
    share.take()
    thread.worked += 0.001
    share.take()
    assert thread.pauses == pytest.approx([0.0005 * PAUSE, 0.001 * PAUSE])


def test_no_pause_is_long(thread: Thread) -> None:
    share = Turns(lambda: True)
    share.take()
    thread.worked += 5
    share.take()
    assert thread.pauses == [LONGEST]


def test_nobody_waits_while_the_mount_is_quiet(thread: Thread) -> None:
    busy = False
    share = Turns(lambda: busy)
    for _ in range(10):
        thread.worked += 0.1
        share.take()
    busy = True
    share.take()  # what was done meanwhile is not held against it
    assert thread.pauses == []
