"""The loop gate: no scheduler pass for a request that is there, a turn for others, and a reader at all times."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from types import ModuleType

import pyfuse3
import pytest
import trio
from trio.testing import assert_no_checkpoints, wait_all_tasks_blocked

from tonfs.fuse import gate as gate_module
from tonfs.fuse.gate import BURST, PATIENCE, Gate, install, remove


@pytest.fixture
def full_pipe() -> Iterator[int]:
    """A descriptor that stays readable."""
    reader, writer = os.pipe()
    os.write(writer, b"x")
    yield reader
    os.close(reader)
    os.close(writer)


@pytest.fixture
def empty_pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine must not end a burst early."""
    monkeypatch.setattr(gate_module, "SLICE", 1e9)


async def test_a_request_that_is_there_costs_no_scheduler_pass(full_pipe: int, patient: None) -> None:
    gate = Gate()
    with assert_no_checkpoints():
        async with gate:
            await gate.wait_readable(full_pipe)
    assert gate.at_once == 1


async def test_other_tasks_get_their_turn_after_a_burst(full_pipe: int, patient: None) -> None:
    gate = Gate()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await trio.lowlevel.checkpoint()
        before = turns
        for _ in range(BURST * 8):
            await gate.wait_readable(full_pipe)
        nursery.cancel_scope.cancel()
    assert before + 3 <= turns <= before + 40


async def test_the_next_request_is_waited_for_without_a_scheduler_pass(
    empty_pipe: tuple[int, int], patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "PATIENCE", 60_000)
    gate = Gate()
    reader, writer = empty_pipe
    timer = threading.Timer(0.02, os.write, (writer, b"x"))
    timer.start()
    with assert_no_checkpoints():
        await gate.wait_readable(reader)
    timer.join()
    assert gate.at_once == 1


@pytest.mark.parametrize("suspended", [False, True])
async def test_a_suspended_request_does_not_wait_for_the_next(
    suspended: bool, empty_pipe: tuple[int, int], patient: None
) -> None:
    """Its end comes through the scheduler, which must then run at once."""
    gate = Gate(lambda: suspended)
    reader, writer = empty_pipe
    asked: set[int] = set()
    gate._ask = asked.add  # nothing comes
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gate.wait_readable, reader)
        await wait_all_tasks_blocked()
        os.write(writer, b"x")
    assert asked == ({0} if suspended else {0, PATIENCE})


async def test_a_request_that_comes_later_is_waited_for(empty_pipe: tuple[int, int]) -> None:
    gate = Gate()
    reader, writer = empty_pipe
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gate.wait_readable, reader)
        await wait_all_tasks_blocked()
        os.write(writer, b"x")
    assert gate.at_once == 0


async def test_it_is_busy_for_a_moment_after_a_request(full_pipe: int, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    assert not gate.busy()
    monkeypatch.setattr(gate_module, "RECENT", 1e9)
    await gate.wait_readable(full_pipe)
    assert gate.busy()
    monkeypatch.setattr(gate_module, "RECENT", 0.0)
    assert not gate.busy()


async def test_closing_ends_the_wait(empty_pipe: tuple[int, int]) -> None:
    gate = Gate()
    ended = trio.Event()

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await gate.wait_readable(empty_pipe[0])
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        trio.lowlevel.notify_closing(empty_pipe[0])
        await ended.wait()


async def test_another_worker_reads_on_when_a_handler_suspends(full_pipe: int) -> None:
    gate = Gate()
    trio.lowlevel.add_instrument(gate)
    release = trio.Event()
    served: list[str] = []

    async def worker(name: str, handler: trio.Event | None) -> None:
        async with gate:
            await gate.wait_readable(full_pipe)
        if handler is not None:
            await handler.wait()
        served.append(name)

    async with trio.open_nursery() as nursery:
        async with gate:  # both find it taken
            nursery.start_soon(worker, "quick", None)
            await wait_all_tasks_blocked()
            nursery.start_soon(worker, "slow", release)
            await wait_all_tasks_blocked()
            assert served == []
        await wait_all_tasks_blocked()
        assert served == ["quick"]  # "slow" came last, was woken first, and suspends
        release.set()
    assert served == ["quick", "slow"]
    trio.lowlevel.remove_instrument(gate)


async def test_a_cancelled_worker_is_not_woken(full_pipe: int) -> None:
    gate = Gate()
    trio.lowlevel.add_instrument(gate)

    async def worker() -> None:
        async with gate:
            await gate.wait_readable(full_pipe)

    async with trio.open_nursery() as nursery:
        async with gate:
            nursery.start_soon(worker)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await wait_all_tasks_blocked()
    async with gate:
        pass
    trio.lowlevel.remove_instrument(gate)


async def test_installing_leaves_every_other_name_of_trio() -> None:
    gate = Gate()
    assert install(gate)
    try:
        stand_in = pyfuse3.__dict__["trio"]
        assert stand_in is not trio
        assert stand_in.Lock() is gate
        assert stand_in.open_nursery is trio.open_nursery
        assert stand_in.lowlevel.current_task is trio.lowlevel.current_task
        assert not install(Gate()), "twice"
    finally:
        remove(gate)
    assert pyfuse3.__dict__["trio"] is trio


async def test_a_pyfuse3_without_that_name_keeps_its_own_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "pyfuse3", ModuleType("pyfuse3"))
    assert not install(Gate())
