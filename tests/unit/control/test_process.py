"""Children of a supervisor: when one counts as ready, and what is said when it ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from tonfs.control import process, serve
from tonfs.control.process import Child, start_failure
from tonfs.errors import NoSpace, NotRunning, Refused

SAID = "some line\ntonfs: /x cannot be used as a mount point: Permission denied. [TF0005]\n       Choose another.\n"


async def ping(_params: dict[str, Any]) -> dict[str, Any]:
    return {"pid": os.getpid()}


async def test_a_child_is_not_ready_because_somebody_else_answers_in_its_place(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("said by one before\n", encoding="utf-8")
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: serve(tmp_path / "s.sock", {"ping": ping}, task_status=task_status))
        child = Child("child", [sys.executable, "-c", "print('the volume is in use')"], log)
        child.start()
        with pytest.raises(NotRunning, match="the volume is in use") as caught:
            await child.ready(tmp_path / "s.sock", timeout=30.0)
        assert "said by one before" not in caught.value.message
        nursery.cancel_scope.cancel()


def test_what_the_child_said_last_is_told_with_its_own_code(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(SAID)
    failure = start_failure("The front", log)
    assert isinstance(failure, Refused)
    assert failure.message == "The front did not start: /x cannot be used as a mount point: Permission denied."
    assert failure.hint == "Choose another."
    log.write_text(SAID + "and then something else\n")
    assert isinstance(start_failure("The front", log), NotRunning)
    assert "something else" in start_failure("The front", log).message
    assert isinstance(start_failure("The front", log, late=True), NotRunning)


def test_lines_of_an_earlier_life_are_not_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    log.write_text(SAID)
    assert start_failure("The front", log, len(SAID)).message == "The front did not start: its log is empty"
    monkeypatch.setattr(process, "is_full", lambda directory: directory == tmp_path)
    assert isinstance(start_failure("The front", log, len(SAID)), NoSpace)


async def test_a_child_that_ends_at_once_is_quoted(tmp_path: Path) -> None:
    code = "import sys; sys.stderr.write('tonfs: It is mine. [TF0005]\\n'); sys.exit(5)"
    child = Child("front", [sys.executable, "-c", code], tmp_path / "log" / "front.log")
    child.start()
    with pytest.raises(Refused, match=r"The front did not start: It is mine\."):
        await child.ready(tmp_path / "socket", timeout=60)
    await child.stop()
