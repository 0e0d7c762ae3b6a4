"""One mount in this process: start, serve, tell the kernel of changes, stop in order."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pyfuse3
import trio

from ..errors import Busy, Refused, TonfsError
from ..ids import Inode
from ..log import get_logger
from ..volume.api import Change, Fetch, Namespace
from . import mountpoint
from .gate import WORKERS, Gate, install, remove
from .handlers import Handlers
from .handshake import shake_hands
from .options import MountOptions
from .virtual import Reports
from .writeback import keep_sending, send_quietly

log = get_logger(__name__)

SYNC_TIMEOUT: Final = 60.0
UNMOUNT_TIMEOUT: Final = 60.0


PULL_TIMEOUT: Final = 5.0
SETTLE_TIMEOUT: Final = 2.0
SHOW_TIMEOUT: Final = 1.0


class _Errand:
    """Something that a thread waits for: the kernel's bytes of a file, or only its turn."""

    def __init__(self, inode: Inode | None = None) -> None:
        self.inode = inode
        self.done = threading.Event()


class Invalidator:
    """Tells the kernel, from a thread, what it must forget; such calls may wait for requests that we serve."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Change | _Errand | Inode | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="invalidate", daemon=True)
        self._stopping = False

    def start(self) -> None:
        self._thread.start()

    def tell(self, change: Change | Inode) -> None:
        """An inode: only its attributes."""
        self._queue.put(change)

    def pull(self, inode: Inode) -> None:
        """What the kernel has of the file and did not write yet is written when this returns, or at a deadline."""
        self._run(_Errand(inode), PULL_TIMEOUT)

    def settle(self) -> None:
        """Everything told so far is forgotten when this returns, or at a deadline."""
        self._run(_Errand(), SETTLE_TIMEOUT)

    def _run(self, errand: _Errand, timeout: float) -> None:
        if not self._stopping and self._thread.is_alive():
            self._queue.put(errand)
            if not errand.done.wait(timeout):
                log.warning("the kernel takes long to give up what it holds", inode=errand.inode)

    def stop(self) -> bool:
        """Only after the unmount: nothing can block the thread then. False when it is blocked all the same."""
        self._stopping = True
        self._queue.put(None)
        if self._thread.ident is not None:
            self._thread.join(timeout=10.0)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (change := self._queue.get()) is not None and not self._stopping:
            if isinstance(change, _Errand):
                if change.inode is not None:
                    # Forgetting its pages, the kernel first writes those that are dirty.
                    self._forget(partial(pyfuse3.invalidate_inode, change.inode))
                change.done.set()
                continue
            if isinstance(change, int):
                self._forget(partial(pyfuse3.invalidate_inode, change, attr_only=True))
                continue
            for parent, name in change.entries:
                self._forget(partial(pyfuse3.invalidate_entry, parent, name))
            for inode in change.inodes:
                self._forget(partial(pyfuse3.invalidate_inode, inode))

    @staticmethod
    def _forget(call: partial[None]) -> None:
        try:
            call()
        except OSError as exc:
            # ENOENT: the kernel did not know it; EBADF, ENOTCONN, ENODEV: the mount is going away.
            log.debug("the kernel had nothing to forget", reason=str(exc))


@contextlib.contextmanager
def heard_on_stderr(lines: list[str]) -> Iterator[None]:
    """What libfuse and fusermount3 write to stderr goes to `lines`; the reason of a failure is nowhere else."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            text = file.read().decode("utf-8", "replace")
            lines += [line.strip().rstrip(".") for line in text.splitlines() if line.strip()]


def _forget_attributes(inode: Inode) -> None:
    with contextlib.suppress(OSError):  # the kernel did not know it, or the mount goes away
        pyfuse3.invalidate_inode(inode, attr_only=True)


class Mount:
    """pyfuse3 has one session a process, so there is at most one of these.

    `start` before the event loop serves anything else, then `serve` in a task; `stop` unmounts while `serve` goes on
    answering (dirty pages are written then), which makes `serve` return. `finish` when it has returned.
    """

    def __init__(
        self,
        namespace: Namespace,
        fetch: Fetch,
        options: MountOptions,
        point: str,
        volume: Path,
        reports: Reports | None = None,
    ) -> None:
        self.point = point
        self.alive = False
        self._started = self._answered = False
        self._options = options
        self._source = mountpoint.source_of(volume)
        self._handlers = Handlers(namespace, fetch, options, reports)
        self._handlers.send_written = partial(send_quietly, point)
        self._handlers.show_again = self._show_again
        self._handlers.ask_again = _forget_attributes
        self._invalidator = Invalidator()
        self._ended = trio.Event()
        self._kernel = namespace.kernel
        namespace.on_change(self._changed)

    def _changed(self, change: Change) -> None:
        if self.alive:
            self._invalidator.tell(change)

    def _kernel_options(self) -> set[str]:
        options = {"default_permissions", "subtype=tonfs", *self._options.kernel}
        options.add("fsname=" + self._source)
        if self._options.allow_other or os.geteuid() == 0:
            options.add("allow_other")
        return options

    def start(self) -> None:
        """Mount. From now on, and until `serve` runs, nothing may touch the mount point. Raises Refused."""
        mountpoint.check_fuse()
        said: list[str] = []
        try:
            with heard_on_stderr(said):
                pyfuse3.init(self._handlers, self.point, self._kernel_options())
        except (RuntimeError, UnicodeEncodeError) as exc:
            raise mountpoint.refusal(self.point, "; ".join(said) or str(exc)) from None
        self._started = True

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer requests until the file system is unmounted, by `stop` or by anybody else. Started when
        one was answered. Raises Refused."""
        self._invalidator.start()
        self.alive = True
        self._kernel.pull, self._kernel.settle = self._invalidator.pull, self._invalidator.settle
        self._kernel.mounted = True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tune)
                await nursery.start(self._handlers.disk.run)
                # Also for ro: a remount may make it writable.
                nursery.start_soon(keep_sending, self.point, self._writers, self._sent)
                nursery.start_soon(self._say_when_it_answers, task_status)
                await self._answer()
                if not self._answered:  # the kernel and libfuse disagreed when they met; libfuse said why on stderr
                    raise Refused(f"{self.point} was mounted and does not answer.", hint="The front's log says more.")
                nursery.cancel_scope.cancel()
        finally:
            self.alive = self._kernel.mounted = False
            self._ended.set()

    async def _say_when_it_answers(self, task_status: trio.TaskStatus[None]) -> None:
        with contextlib.suppress(OSError):  # the session ends then
            await trio.to_thread.run_sync(os.statvfs, self.point, abandon_on_cancel=True)
            self._answered = True
            task_status.started()

    def _writers(self) -> Iterable[Inode]:
        """Files of which the kernel may hold bytes that programs wrote and we have not seen."""
        return self._kernel.writers

    def _sent(self, inodes: Iterable[Inode]) -> None:
        """From a thread, because the kernel may be about to close one of them and wait for our answers."""
        self._kernel.sent = True
        for inode in filter(self._handlers.shows_old_blocks, inodes):
            self._invalidator.tell(inode)

    async def _answer(self) -> None:
        gate = Gate(self._handlers.suspended)
        if not install(gate):
            log.info("this pyfuse3 does not take the fast loop; its own serves")
            return await pyfuse3.main(WORKERS, WORKERS)
        self._kernel.busy = gate.busy
        shake_hands(gate, self._handlers.agree)
        try:
            await pyfuse3.main(WORKERS, WORKERS)
        finally:
            remove(gate)

    @staticmethod
    async def _show_again(inode: Inode) -> None:
        """In a thread and with a deadline: the kernel may be waiting for our answer before it lets go of the inode."""
        with trio.move_on_after(SHOW_TIMEOUT):
            await trio.to_thread.run_sync(_forget_attributes, inode, abandon_on_cancel=True)

    async def _tune(self) -> None:
        await trio.to_thread.run_sync(mountpoint.tune, self.point)

    async def stop(self) -> None:
        """Unmount in order: what the kernel still holds is written first. Detached when somebody keeps it busy."""
        if self._ended.is_set():
            return
        try:
            await trio.to_thread.run_sync(partial(mountpoint.unmount, self.point, timeout=UNMOUNT_TIMEOUT))
        except Busy:
            log.info("the mount point is in use; it is detached", point=self.point)
            await self._detach()
        except TonfsError as exc:
            log.error("unmounting failed", point=self.point, reason=exc.message)
            await self._detach()
        with trio.move_on_after(10.0):
            await self._ended.wait()
        if not self._ended.is_set():
            pyfuse3.terminate()
            await self._ended.wait()

    async def _detach(self) -> None:
        with trio.move_on_after(SYNC_TIMEOUT):
            await trio.run_process(["sync", "-f", "--", self.point], check=False, capture_stderr=True)
        try:
            await trio.to_thread.run_sync(partial(mountpoint.unmount, self.point, lazy=True))
        except TonfsError as exc:
            log.error("detaching failed", point=self.point, reason=exc.message)
        if not self._ended.is_set():
            pyfuse3.terminate()

    def finish(self) -> None:
        """Free the session; the mount point is no mount any more. Idempotent."""
        if not self._started:
            return
        self._started = False
        if self._invalidator.stop():
            there = mountpoint.find_mount(self.point)
            pyfuse3.close(unmount=there is not None and there.source == self._source)
