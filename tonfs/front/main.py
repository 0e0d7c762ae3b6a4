"""The front process: volume, mount, S3 door and control socket in one nursery, stopped in order.

Order of the end: S3 stops taking requests; the mount is unmounted while it still answers, so that the kernel writes
what it holds; the volume is committed and closed; the control socket goes last. What is asked for while stopping is
answered until then.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from ..config import Settings
from ..control import ControlClient, Handler, serve
from ..control.systemd import notify
from ..errors import TonfsError, UsageError
from ..fuse import Mount, MountOptions, prepare
from ..log import get_logger
from ..volume import Volume
from .fetcher import Fetcher
from .methods import Methods
from .reports import Reports
from .timing import COMMIT_INTERVAL, CommitTiming
from .turn import wait_for_turn

log = get_logger(__name__)

CACHE_INTERVAL: Final = 10.0
KEYS_PATIENCE: Final = 0.1
"""Seconds until the S3 door sees that access keys were changed without asking it."""


@dataclass(frozen=True)
class FrontConfig:
    """What one front does."""

    volume: Path
    settings: Settings
    mount: Path | None = None
    """Where to mount; None: only the S3 door."""
    options: MountOptions = field(default_factory=MountOptions)
    s3_listen: str = ""
    """HOST:PORT; "" for no S3 door."""
    s3_remote_without_tls: bool = False
    """Asked on the command line: let other machines in without TLS (the settings must agree)."""


class Front:
    def __init__(self, config: FrontConfig, volume: Volume) -> None:
        self._config = config
        self._volume = volume
        self._stop = trio.Event()
        self._mount: Mount | None = None
        self._s3_url: str | None = None
        self._s3_methods: dict[str, Handler] = {}
        self._commit_failed = False

    def _mounted(self) -> dict[str, Any]:
        mount = self._mount
        return {"path": mount.point if mount else None, "alive": bool(mount and mount.alive)}

    def _s3(self) -> dict[str, Any]:
        return {"url": self._s3_url, "alive": self._s3_url is not None}

    async def run(self, ready: Callable[[], None]) -> None:
        """Until SIGTERM, SIGINT, `shutdown`, or somebody unmounts. `ready` is called when everything answers."""
        config = self._config
        sockets = self._volume.directory / "run"
        async with trio.open_nursery() as nursery:
            await nursery.start(self._signals)
            agent = None
            if config.settings.network != "none" and not config.options.offline:
                agent = ControlClient(sockets / "agent.sock", who="agent")
                await nursery.start(agent.run)
            deadline = config.options.deadline or config.settings.mount.deadline
            fetcher = Fetcher(self._volume, agent, deadline=deadline)
            await nursery.start(fetcher.run)
            nursery.start_soon(self._commits)
            if config.options.cache_size is not None:
                nursery.start_soon(self._keep_small, config.options.cache_size, agent)
            methods = Methods(self._volume, self._mounted, self._s3, self._stop, asdict(config.options))
            network = config.settings.network
            reports = Reports(self._volume, network, methods, agent, fetcher, deadline)
            async with trio.open_nursery() as doors:
                if config.mount is not None:
                    await self._start_mount(doors, fetcher, reports)
                s3_scope = trio.CancelScope()
                if config.s3_listen:
                    await doors.start(self._serve_s3, fetcher, s3_scope)
                handlers = {**methods.handlers(), **self._s3_methods}
                await nursery.start(partial(serve, sockets / "front.sock", handlers))
                ready()
                log.info("front is ready", volume=str(config.volume), mount=self._mounted()["path"], s3=self._s3_url)
                await self._stop.wait()
                notify("STOPPING=1")
                s3_scope.cancel()
                if self._mount is not None:
                    await self._mount.stop()
            self.abort()
            await trio.to_thread.run_sync(self._volume.close)
            nursery.cancel_scope.cancel()

    def abort(self) -> None:
        """Free the mount's session, if there is one; the kernel's connection ends. Idempotent."""
        if self._mount is not None:
            self._mount.finish()

    async def _start_mount(self, doors: trio.Nursery, fetcher: Fetcher, reports: Reports) -> None:
        assert self._config.mount is not None
        point = prepare(self._config.mount, self._config.volume)
        self._mount = Mount(self._volume, fetcher, self._config.options, point, self._volume.directory, reports)
        self._mount.start()
        # Nothing may touch the mount point before this task serves it.
        await doors.start(self._serve_mount)

    async def _serve_mount(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        assert self._mount is not None
        try:
            await self._mount.serve(task_status=task_status)
        finally:
            self._stop.set()

    async def _serve_s3(
        self,
        fetcher: Fetcher,
        scope: trio.CancelScope,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Raises what keeps the door from opening. Should it fall later, the front stops in order."""
        # Imported only when somebody wants S3.
        from ..s3shim.app import serve_s3
        from ..s3shim.features import Features
        from ..s3shim.keys import open_store
        from ..s3shim.listen import Safety
        from .s3_methods import S3Methods

        config, settings = self._config, self._config.settings.s3
        keys = open_store(self._volume.directory, settings, patience=KEYS_PATIENCE)
        await trio.to_thread.run_sync(keys.migrate)
        self._s3_methods = S3Methods(keys).handlers()
        safety = Safety(
            tls_certificate=settings.tls_certificate,
            tls_key=settings.tls_key,
            remote_asked=config.s3_remote_without_tls,
            remote_allowed=settings.remote_without_tls,
            unsigned_over_http=settings.unsigned_over_http,
            presigned_v2=settings.presigned_v2,
        )
        features = Features(
            replicated=config.settings.network != "none",
            show_state=settings.replica_headers,
            upload_days=settings.upload_days,
            open_uploads=settings.open_uploads,
            parts_share=settings.parts_share,
        )
        place = (self._volume, config.s3_listen, settings.region, keys, fetcher)
        start = partial(serve_s3, *place, safety=safety, features=features)
        try:
            with scope:
                async with trio.open_nursery() as nursery:
                    self._s3_url = await nursery.start(start)
                    task_status.started()
        except Exception as exc:
            if self._s3_url is None:
                raise
            log.error("the S3 door fell", exc=exc)
            self._stop.set()
        finally:
            self._s3_url = None

    async def _signals(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                log.info("stopping", signal=signal.Signals(number).name)
                self._stop.set()

    async def _commits(self) -> None:
        """Commit what is pending, as `CommitTiming` says; a full disk is tried again, and said once."""
        volume, kernel = self._volume, self._volume.kernel
        timing = CommitTiming()
        while True:
            await trio.sleep(COMMIT_INTERVAL)
            if not timing.due(volume.pending or volume.space.low, busy=kernel.busy(), sent=kernel.sent):
                continue
            kernel.sent = False
            try:
                await trio.to_thread.run_sync(self._volume.background)
                self._commit_failed = False
            except TonfsError as exc:
                if not self._commit_failed:
                    log.error("the index cannot be committed now; it is tried again", reason=exc.message)
                self._commit_failed = True

    async def _keep_small(self, limit: int, agent: ControlClient | None) -> None:
        """The option cache_size: evict proven local copies beyond the limit, oldest change first."""
        while True:
            await trio.sleep(CACHE_INTERVAL)
            try:
                done = await trio.to_thread.run_sync(self._volume.evict_down_to, limit)
                if done is not None and done.bags and agent is not None:
                    await agent.call("drop_local", {"bag_ids": [bag.hex() for bag in done.bags]}, timeout=60.0)
            except TonfsError as exc:
                log.debug("keeping the cache small did not work this time", reason=exc.message)


def _prepare_process() -> None:
    """Enough descriptors, no pauses by the garbage collector, quick hand-over to threads (reference fuse.md, 6)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else max(soft, 65536), hard))
    sys.setswitchinterval(0.001)
    os.umask(0o077)
    os.chdir("/")


def run_front(config: FrontConfig, ready: Callable[[], None] = lambda: None) -> None:
    """Run a front in this process until it is told to stop. Raises TonfsError when it cannot start."""
    if config.mount is None and not config.s3_listen:
        raise UsageError("A front needs a mount point or the address of an S3 door.")
    _prepare_process()
    wait_for_turn(config.volume)
    volume = Volume(config.volume)
    gc.freeze()
    gc.set_threshold(100_000)
    front = Front(config, volume)
    try:
        trio.run(front.run, ready)
    except BaseExceptionGroup as group:
        raise _only(group) from None
    finally:
        front.abort()
        _close(volume)


def _close(volume: Volume) -> None:
    try:
        volume.close()
    except TonfsError as exc:
        log.error("the volume could not be closed in order", reason=exc.message)
        volume.abandon()


def _only(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
