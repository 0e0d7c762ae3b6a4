"""fdatasync without a thread: the kernel's asynchronous I/O does it and tells the event loop by an eventfd.

A thread for each fsync costs more than the disk: it is woken twice, and both times it fights the loop for the
interpreter. Where the kernel has no asynchronous I/O (or refuses it, as some containers do) threads serve.

Those who want the same descriptor synced while that is under way share the next one (a group commit).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import select
import struct
from collections.abc import Callable, Sequence
from typing import Final

import trio

from ..log import get_logger

log = get_logger(__name__)

DEPTH: Final = 256
"""Operations that may be under way; more wait for room in threads."""
PATIENCE: Final = 1
"""Milliseconds; a disk that takes longer is waited for by the scheduler."""
_NUMBERS: Final = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
"""io_setup, io_destroy, io_getevents, io_submit."""
_FDSYNC: Final = 3
_RESFD: Final = 1
_IOCB: Final = struct.Struct("<QIIHhIQQqQII")
_EVENT: Final = struct.Struct("<QQqq")
_libc = ctypes.PyDLL(None, use_errno=True)  # these calls only queue work: they keep the interpreter


class _Sync:
    """One fdatasync that was asked for."""

    __slots__ = ("done", "error", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.done = trio.Event()
        self.error = 0


class _Aio:
    """A context of the kernel's. Raises OSError where there is none."""

    def __init__(self) -> None:
        numbers = _NUMBERS.get(platform.machine())
        if numbers is None:
            raise OSError(errno.ENOSYS, "not known on this machine")
        setup, self._destroy, self._getevents, self._submit = numbers
        self._context = ctypes.c_ulong(0)
        if _libc.syscall(setup, DEPTH, ctypes.byref(self._context)) != 0:
            raise OSError(ctypes.get_errno(), "io_setup")
        self.eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._iocb = ctypes.create_string_buffer(_IOCB.size)
        self._list = (ctypes.c_void_p * 1)(ctypes.addressof(self._iocb))
        self._events = ctypes.create_string_buffer(_EVENT.size * DEPTH)

    def submit(self, fd: int, number: int) -> None:
        """Raises OSError (EAGAIN: too many are under way)."""
        _IOCB.pack_into(self._iocb, 0, number, 0, 0, _FDSYNC, 0, fd, 0, 0, 0, 0, _RESFD, self.eventfd)
        if _libc.syscall(self._submit, self._context, 1, self._list) != 1:
            raise OSError(ctypes.get_errno(), "io_submit")

    def ended(self) -> list[tuple[int, int]]:
        """(number, errno or 0) of what has ended since the last call."""
        count = _libc.syscall(self._getevents, self._context, 0, DEPTH, self._events, None)
        found = [_EVENT.unpack_from(self._events, _EVENT.size * n) for n in range(count)]
        return [(number, -result if result < 0 else 0) for number, _, result, _ in found]

    def close(self) -> None:
        _libc.syscall(self._destroy, self._context)
        os.close(self.eventfd)


class DiskSync:
    """`run` serves; without it, and before it, threads do."""

    def __init__(self) -> None:
        self._aio: _Aio | None = None
        self._numbers = 0
        self._under_way: dict[int, _Sync] = {}
        self._by_fd: dict[int, _Sync] = {}
        self._next: dict[int, _Sync] = {}
        self._look: Callable[[int], list[tuple[int, int]]] | None = None
        self._others = -1

    def wait_beside(self, fd: int) -> None:
        """Most syncs are over before anybody asks for anything else: wait for them on the spot, for `PATIENCE`, unless
        something can be read from this descriptor. That costs no pass through the scheduler."""
        self._others = fd

    async def fdatasync(self, fds: Sequence[int]) -> None:
        """All of them, side by side. Raises OSError, the first one's; nothing is under way any more then."""
        if self._aio is None:
            await trio.to_thread.run_sync(_one_by_one, fds)
            return
        failed = 0
        syncs = [self._ask(fd) for fd in fds]
        self._wait_here(syncs)
        with trio.CancelScope(shield=True):  # who asked closes the descriptors next
            for sync in syncs:
                if not sync.done.is_set():
                    await sync.done.wait()
                failed = failed or sync.error
        if failed == errno.EAGAIN:
            await trio.to_thread.run_sync(_one_by_one, fds)
        elif failed:
            raise OSError(failed, os.strerror(failed))

    def _wait_here(self, syncs: list[_Sync]) -> None:
        if self._look is None and self._others >= 0 and self._aio is not None:
            asker = select.poll()
            asker.register(self._aio.eventfd, select.POLLIN)
            asker.register(self._others, select.POLLIN)
            self._look = asker.poll
        while self._look is not None and not all(sync.done.is_set() for sync in syncs):
            ready = self._look(PATIENCE)
            if not ready or any(fd == self._others for fd, _ in ready):
                return
            self._collect()

    def _ask(self, fd: int) -> _Sync:
        if fd in self._by_fd:
            if fd not in self._next:
                self._next[fd] = _Sync(fd)
            return self._next[fd]
        sync = _Sync(fd)
        self._start(sync)
        return sync

    def _start(self, sync: _Sync) -> None:
        assert self._aio is not None
        self._numbers += 1
        try:
            self._aio.submit(sync.fd, self._numbers)
        except OSError as exc:
            sync.error = exc.errno or errno.EIO
            sync.done.set()
        else:
            self._under_way[self._numbers] = self._by_fd[sync.fd] = sync

    def _finish(self, number: int, error: int) -> None:
        sync = self._under_way.pop(number)
        sync.error = error
        sync.done.set()
        del self._by_fd[sync.fd]
        following = self._next.pop(sync.fd, None)
        if following is not None:
            self._start(following)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. What is under way then is waited for."""
        try:
            aio = self._aio = _Aio()
        except OSError as exc:
            log.info("this kernel has no asynchronous I/O for us; threads do the fsyncs", reason=str(exc))
            task_status.started()
            return
        try:
            task_status.started()
            while True:
                await self._serve(aio)
        finally:
            with trio.CancelScope(shield=True):
                while self._under_way:
                    await self._serve(aio)
            self._aio = self._look = None
            aio.close()

    async def _serve(self, aio: _Aio) -> None:
        await trio.lowlevel.wait_readable(aio.eventfd)
        self._collect()

    def _collect(self) -> None:
        assert self._aio is not None
        with contextlib.suppress(BlockingIOError):  # somebody was faster
            os.eventfd_read(self._aio.eventfd)
        for number, error in self._aio.ended():
            self._finish(number, error)


def _one_by_one(fds: Sequence[int]) -> None:
    for fd in fds:
        os.fdatasync(fd)
