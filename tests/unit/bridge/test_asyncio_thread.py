"""Both directions, errors, cancellation and the death of either side."""

from __future__ import annotations

import asyncio
import threading

import pytest
import trio
import trio.lowlevel

from tonfs.bridge import AsyncioThread
from tonfs.errors import BadProof, NotRunning, TimedOut


class Odd(Exception):
    pass


async def add(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


async def fail_with(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


def fall_over() -> None:
    raise SystemExit(3)


async def forever() -> None:
    await asyncio.Event().wait()


async def test_a_coroutine_runs_in_another_thread_and_its_result_comes_back() -> None:
    async def where() -> int:
        return threading.get_ident()

    async with AsyncioThread() as bridge:
        assert await bridge.run(add, 2, 3) == 5
        assert await bridge.run(where) != threading.get_ident()


async def test_many_calls_run_at_the_same_time() -> None:
    async with AsyncioThread() as bridge:
        gate = asyncio.Event()
        results: list[int] = []

        async def pass_gate(number: int) -> int:
            await gate.wait()
            return number

        async def one(number: int) -> None:
            results.append(await bridge.run(pass_gate, number))

        async def open_gate() -> None:
            gate.set()

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(one, number)
            await bridge.run(open_gate)
        assert sorted(results) == list(range(20))


async def test_the_very_exception_object_passes_unchanged() -> None:
    error = BadProof("no")
    async with AsyncioThread() as bridge:
        with pytest.raises(BadProof) as caught:
            await bridge.run(fail_with, error)
    assert caught.value is error


async def test_an_error_of_the_body_is_not_wrapped_in_a_group() -> None:
    with pytest.raises(Odd):
        async with AsyncioThread():
            raise Odd


async def test_a_timeout_ends_a_hanging_call_and_cancels_the_coroutine() -> None:
    ended = threading.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with AsyncioThread() as bridge:
        with pytest.raises(TimedOut):
            await bridge.run(hang, timeout=0.01)
        assert await trio.to_thread.run_sync(ended.wait, 5)
        assert await bridge.run(add, 1, 1) == 2


async def test_cancelling_the_trio_task_cancels_the_coroutine_and_waits_for_its_cleanup() -> None:
    started = threading.Event()
    cleaned: list[bool] = []

    async def hang() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    async with AsyncioThread() as bridge:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bridge.run, hang)
            await trio.to_thread.run_sync(started.wait, 5)
            nursery.cancel_scope.cancel()
        assert cleaned == [True]


async def test_a_coroutine_that_ignores_its_cancellation_does_not_hang_trio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tonfs.bridge.asyncio_thread.GRACE", 0.05)
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async def let_go() -> None:
        release.set()

    async with AsyncioThread() as bridge:
        with trio.move_on_after(0.01) as scope:
            await bridge.run(stubborn)
        assert scope.cancelled_caught
        await bridge.run(let_go)


async def test_asyncio_can_call_trio_and_get_values_and_errors() -> None:
    async def double(value: int) -> int:
        await trio.lowlevel.checkpoint()
        assert trio.lowlevel.current_trio_token() is not None
        return 2 * value

    async def broken() -> None:
        raise Odd("from trio")

    async with AsyncioThread() as bridge:

        async def ask(value: int) -> int:
            return await bridge.call_trio(double, value)

        async def ask_broken() -> str:
            try:
                await bridge.call_trio(broken)
            except Odd as exc:
                return str(exc)
            return ""

        assert await bridge.run(ask, 21) == 42
        assert await bridge.run(ask_broken) == "from trio"
        with pytest.raises(Odd):
            await bridge.run(bridge.call_trio, broken)


async def test_cancelling_the_asyncio_task_cancels_the_trio_task() -> None:
    started = trio.Event()
    cancelled = trio.Event()

    async def sleeper() -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with AsyncioThread() as bridge:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bridge.run, bridge.call_trio, sleeper)
            await started.wait()
            nursery.cancel_scope.cancel()
        assert cancelled.is_set()


async def test_leaving_the_context_cancels_calls_in_both_directions_and_ends_the_thread() -> None:
    outcomes: list[str] = []
    in_trio = trio.Event()

    async def sleeper() -> None:
        in_trio.set()
        try:
            await trio.sleep_forever()
        finally:
            outcomes.append("trio task ended")

    async with trio.open_nursery() as nursery, AsyncioThread("soon-gone") as bridge:

        async def one() -> None:
            try:
                await bridge.run(forever)
            except NotRunning:
                outcomes.append("run ended")

        async def two() -> None:
            try:
                await bridge.run(bridge.call_trio, sleeper)
            except NotRunning:
                outcomes.append("callback ended")

        nursery.start_soon(one)
        nursery.start_soon(two)
        await in_trio.wait()
    assert sorted(outcomes) == ["callback ended", "run ended", "trio task ended"]
    assert "soon-gone" not in {thread.name for thread in threading.enumerate()}
    assert not bridge.alive
    with pytest.raises(NotRunning):
        await bridge.run(forever)


@pytest.mark.allow_logs
async def test_when_the_asyncio_thread_dies_every_waiting_call_ends() -> None:
    async with AsyncioThread() as bridge:
        ended: list[type[BaseException]] = []

        async def wait() -> None:
            try:
                await bridge.run(forever)
            except NotRunning as exc:
                ended.append(type(exc))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            bridge._post(fall_over)
        assert ended == [NotRunning]
        with pytest.raises(NotRunning):
            await bridge.run(add, 1, 2)


def test_when_trio_has_ended_asyncio_is_told_so() -> None:
    heard: list[str] = []
    bridge = AsyncioThread()
    ready = threading.Event()

    async def nothing() -> None:
        pass

    async def later() -> None:
        await asyncio.get_running_loop().run_in_executor(None, ready.wait, 5)
        try:
            await bridge.call_trio(nothing)
        except NotRunning:
            heard.append("told")

    async def main() -> None:
        await bridge.__aenter__()
        assert bridge._loop is not None
        loop = bridge._loop
        loop.call_soon_threadsafe(lambda: tasks.append(loop.create_task(later())))

    tasks: list[asyncio.Task[None]] = []
    trio.run(main)
    ready.set()
    assert bridge._loop is not None
    assert bridge._thread is not None

    async def settle() -> None:
        await asyncio.wait(tasks, timeout=5)

    asyncio.run_coroutine_threadsafe(settle(), bridge._loop).result(5)
    bridge._post(bridge._request_stop)
    bridge._thread.join(5)
    assert heard == ["told"]


@pytest.mark.allow_logs
async def test_an_error_that_nobody_waits_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def spawn() -> None:
        task = asyncio.get_running_loop().create_task(fail_with(Odd("lost")))
        await asyncio.wait([task])
        del task

    async with AsyncioThread() as bridge:
        await bridge.run(spawn)
    assert any("asyncio reports" in record.getMessage() for record in caplog.records)
