"""Children of a supervisor: when one counts as ready, and what is said when it ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from tonfs.control import serve
from tonfs.control.process import Child
from tonfs.errors import NotRunning


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
