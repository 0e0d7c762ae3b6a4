"""An asyncio loop in its own thread, for libraries that need one (pytoniq, aiohttp).

    async with AsyncioThread() as bridge:
        answer = await bridge.run(coro_fn, arg, timeout=5)     # from trio
        ...
        value = await bridge.call_trio(trio_fn, arg)           # from a coroutine inside that loop

Rules: exceptions cross unchanged; cancellation crosses in both directions and is waited for, but never longer than
`GRACE`; leaving the context cancels what still runs and joins the thread; when one side is gone the other gets
`NotRunning` instead of waiting.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, TypeVar, TypeVarTuple

import outcome
import trio

from ..errors import NotRunning, TimedOut
from ..log import get_logger

T = TypeVar("T")
Args = TypeVarTuple("Args")

GRACE: Final = 5.0
"""Seconds that a cancelled call on the other side gets to wind down before it is left behind."""

log = get_logger(__name__)


class _Call:
    """One `run`: shared by the trio task that waits and the asyncio task that works."""

    __slots__ = ("cancelled", "done", "name", "result", "task", "token")

    def __init__(self, name: str) -> None:
        self.name = name
        self.token = trio.lowlevel.current_trio_token()
        self.done = trio.Event()
        self.result: outcome.Outcome[Any] | None = None
        self.task: asyncio.Task[None] | None = None
        self.cancelled = False

    def report(self, result: outcome.Outcome[Any]) -> None:
        """From the asyncio thread: hand the result over, once."""

        def deliver() -> None:
            if self.result is None:
                self.result = result
                self.done.set()

        try:
            self.token.run_sync_soon(deliver)
        except trio.RunFinishedError:
            log.debug("a result came after the trio side had ended", call=self.name)


class AsyncioThread:
    """See the module. Use as an async context manager from trio; `run` is safe from any task of that trio run."""

    def __init__(
        self, name: str = "asyncio", loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    ) -> None:
        """`loop_factory` makes another kind of loop than asyncio's own."""
        self._name = name
        self._loop_factory = loop_factory
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._calls: set[_Call] = set()  # guarded by the lock, like `_ended`: no call is posted after the last look
        self._ended = False
        self._token: trio.lowlevel.TrioToken | None = None
        self._open = False
        self._scopes: set[trio.CancelScope] = set()  # calls from asyncio that run in trio; touched only there
        self._idle: trio.Event | None = None

    async def __aenter__(self) -> AsyncioThread:
        if self._thread is not None:
            raise RuntimeError("an AsyncioThread is entered once")
        self._token = trio.lowlevel.current_trio_token()
        self._open = True
        ready = threading.Event()
        self._thread = threading.Thread(target=self._main, args=(ready,), name=self._name, daemon=True)
        self._thread.start()
        # Opening a loop takes a millisecond and cannot wait for anything outside this process.
        ready.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._thread is not None
        self._post(self._request_stop)
        with trio.CancelScope(shield=True):
            # Real seconds: the thread must be gone whatever happens around us. Calls from asyncio to trio can still
            # finish meanwhile, because this waits in a worker thread.
            await trio.to_thread.run_sync(self._thread.join, 3 * GRACE)
            if self._thread.is_alive():
                log.warning("the asyncio thread does not end", thread=self._name)
            self._open = False
            if self._scopes:
                self._idle = trio.Event()
                for scope in self._scopes:
                    scope.cancel()
                with trio.move_on_after(GRACE):
                    await self._idle.wait()

    @property
    def alive(self) -> bool:
        return self._loop is not None and not self._loop.is_closed()

    # The asyncio side.

    def _main(self, ready: threading.Event) -> None:
        try:
            with asyncio.Runner(loop_factory=self._loop_factory) as runner:
                self._loop = runner.get_loop()
                self._loop.set_exception_handler(_complain)
                runner.run(self._serve(ready))
        except BaseException as exc:  # e.g. SystemExit raised in a callback of a library
            log.error("the asyncio thread died", thread=self._name, exc=exc)
        finally:
            ready.set()
            with self._lock:
                self._ended = True
                left = list(self._calls)
                self._calls.clear()
            for call in left:
                call.report(outcome.Error(_closed()))

    def _done(self, call: _Call, result: outcome.Outcome[Any]) -> None:
        with self._lock:
            self._calls.discard(call)
        call.report(result)

    async def _serve(self, ready: threading.Event) -> None:
        self._stop = asyncio.Event()
        ready.set()
        await self._stop.wait()
        with self._lock:
            tasks = [call.task for call in self._calls if call.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE)

    def _request_stop(self) -> None:
        if self._stop is not None:
            self._stop.set()

    def _post(self, function: Callable[..., object], *args: object) -> bool:
        """Run a function in the asyncio thread soon. False when that loop is closed."""
        if self._loop is None:
            return False
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # closed
            return False
        return True

    def _begin(self, call: _Call, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
        assert self._loop is not None
        if call.cancelled or self._stop is None or self._stop.is_set():
            self._done(call, outcome.Error(_closed()))
            return

        async def work() -> None:
            try:
                result: outcome.Outcome[Any] = outcome.Value(await function(*args))
            except asyncio.CancelledError:
                # Not raised in trio as it is: there it would be an unknown BaseException. A caller that cancelled
                # does not look at this result.
                result = outcome.Error(NotRunning(f"{call.name} was cancelled."))
            except BaseException as exc:
                result = outcome.Error(exc)
            self._done(call, result)

        call.task = self._loop.create_task(work(), name=call.name)

    def _cancel(self, call: _Call) -> None:
        call.cancelled = True
        if call.task is None or self._loop is None:
            return
        call.task.cancel()
        self._loop.call_later(GRACE, self._abandon, call)

    def _abandon(self, call: _Call) -> None:
        if call.task is not None and not call.task.done():
            call.report(outcome.Error(NotRunning(f"{call.name} does not react to its cancellation.")))

    # The trio side.

    async def run(
        self, function: Callable[[*Args], Awaitable[T]], *args: *Args, timeout: float | None = None, name: str = ""
    ) -> T:
        """Run `await function(*args)` in the asyncio loop and return its result, or raise what it raised.

        `timeout` in seconds (None: until it ends or the caller is cancelled) raises TimedOut. When the caller is
        cancelled the coroutine is cancelled and waited for. Raises NotRunning when the loop is gone.
        """
        call = _Call(name or getattr(function, "__qualname__", "a call"))
        with self._lock:
            if self._ended:
                raise _closed()
            self._calls.add(call)
        if not self._post(self._begin, call, function, args):
            raise _closed()
        with trio.move_on_after(float("inf") if timeout is None else timeout) as scope:
            try:
                await call.done.wait()
            except trio.Cancelled:
                if self._post(self._cancel, call):
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * GRACE):
                        await call.done.wait()
                raise
        if scope.cancelled_caught:
            raise TimedOut(f"{call.name} took longer than {timeout:g} s.")
        assert call.result is not None
        result: T = call.result.unwrap()
        return result

    # The way back, called in the asyncio loop.

    async def call_trio(self, function: Callable[[*Args], Awaitable[T]], *args: *Args) -> T:
        """From a coroutine in this loop: run `await function(*args)` as a trio task; result and errors come back.

        Cancelling the waiting asyncio task cancels the trio task and waits for it. When the trio side is cancelled
        or closed this raises asyncio.CancelledError or NotRunning.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        scope = trio.CancelScope()

        def finish(result: outcome.Outcome[T] | None) -> None:
            if future.done():
                return
            if result is None:
                future.cancel()
            elif isinstance(result, outcome.Error):
                future.set_exception(result.error)
            else:
                future.set_result(result.unwrap())

        async def work() -> None:
            # A system task: it belongs to no nursery of ours, so its errors go to asyncio and nowhere else.
            result: outcome.Outcome[T] | None = None
            self._scopes.add(scope)
            try:
                with scope:
                    result = await outcome.acapture(function, *args)
                    if isinstance(result, outcome.Error) and isinstance(result.error, trio.Cancelled):
                        cancelled, result = result.error, None
                        raise cancelled
            finally:
                self._scopes.discard(scope)
                if self._idle is not None and not self._scopes:
                    self._idle.set()
                self._post(finish, result)

        def spawn() -> None:
            if self._open:
                trio.lowlevel.spawn_system_task(work, name=getattr(function, "__qualname__", "call_trio"))
            else:
                self._post(finish, outcome.Error(_closed()))

        assert self._token is not None
        try:
            self._token.run_sync_soon(spawn)
        except trio.RunFinishedError:
            raise _closed() from None
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if not future.done():
                try:
                    self._token.run_sync_soon(scope.cancel)
                except trio.RunFinishedError:
                    raise asyncio.CancelledError from None
                await asyncio.wait([future], timeout=GRACE)
            if future.done() and not future.cancelled():
                future.exception()  # seen: nobody else will ask for it
            raise


def _closed() -> NotRunning:
    return NotRunning("The asyncio side has been closed.")


def _complain(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What asyncio would print to stderr: errors in tasks and futures that nobody waited for."""
    error = context.get("exception")
    log.warning("asyncio reports", message=str(context.get("message")), error=repr(error) if error else "")
