"""Child processes of a supervisor: started with a log file, watched, stopped in order, never orphaned."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import trio

from ..errors import NoSpace, NotRunning, TonfsError, from_code
from ..log import get_logger
from ..system import is_full
from .client import ControlClient

log = get_logger(__name__)

PARENT_VARIABLE: Final = "TONFS_PARENT_PID"
_PR_SET_PDEATHSIG: Final = 1


def die_with_parent() -> None:
    """In a child started by `Child`: get SIGTERM when the supervisor dies, even by kill -9. Otherwise nothing.

    The signal is tied to the thread that forked, so `Child.start` forks from the supervisor's main thread.
    """
    parent = os.environ.pop(PARENT_VARIABLE, "")
    if not parent.isdigit():
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        os.kill(os.getpid(), signal.SIGTERM)


def log_tail(path: Path, lines: int = 3, *, since: int = 0) -> str:
    """The last lines of a log file that were written from the byte `since` on, for an error message."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(since, stream.seek(0, os.SEEK_END) - 4096))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-lines:])


def start_failure(who: str, log_path: Path, since: int = 0, *, late: bool = False) -> TonfsError:
    """Why a process that logs to `log_path` does not answer: what it said last there, from byte `since` on, with the
    code of its error. `late`: it still runs."""
    text = log_tail(log_path, since=since)
    state = "did not answer in time" if late else "did not start"
    said = re.search(r"^tonfs: (?P<message>.+) \[(?P<code>TF\d{4})\](?:\n +(?P<hint>.+))?\Z", text, re.MULTILINE)
    if said is not None and not late:
        return from_code(said["code"], f"{who} did not start: {said['message']}", said["hint"] or "")
    if not text and is_full(log_path.parent):
        return NoSpace(f"{who} {state}: the disk is full, not even a log can be written.")
    return NotRunning(f"{who} {state}: {text or 'its log is empty'}", hint=f"Its log is {log_path}.")


class Child:
    """One child process. `start` may be called again after it ended."""

    def __init__(self, name: str, argv: Sequence[str], log_path: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.argv = list(argv)
        self.log_path = log_path
        self._env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._log_from = 0
        """Size of the log when it was started."""

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Fork and exec; output goes to the log file (appended)."""
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, **self._env, PARENT_VARIABLE: str(os.getpid())}
        with self.log_path.open("ab") as output:
            self._log_from = output.tell()
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=env,
                start_new_session=True,  # Ctrl-C is for the supervisor, which stops its children in order
            )

    async def wait(self) -> int:
        """Exit status (negative: signal) once it ended."""
        process = self._process
        if process is None:
            raise NotRunning(f"{self.name} was never started.")
        if process.poll() is None:
            fd = os.pidfd_open(process.pid)
            try:
                await trio.lowlevel.wait_readable(fd)
            finally:
                os.close(fd)
        return process.wait()

    async def ready(self, socket_path: Path, *, timeout: float, method: str = "ping") -> dict[str, object]:
        """Wait until it answers on its control socket (and not one of before that has not ended yet). Raises what it
        said in its log, or NotRunning, when it does not."""
        answer: dict[str, object] | None = None
        with trio.move_on_after(timeout):
            async with trio.open_nursery() as nursery:
                client = ControlClient(socket_path, who=self.name)
                await nursery.start(client.run)
                while self.pid is not None:
                    try:
                        said = await client.call(method, timeout=5.0)
                    except TonfsError:
                        said = {}
                    if said.get("pid") == self.pid is not None:
                        answer = said
                        break
                    await trio.sleep(0.1)
                nursery.cancel_scope.cancel()
        if answer is not None:
            return answer
        raise start_failure(f"The {self.name}", self.log_path, self._log_from, late=self.pid is not None)

    async def stop(self, *, timeout: float = 30.0) -> int | None:
        """SIGTERM, wait, at last SIGKILL. Returns the exit status, None when it did not run."""
        process = self._process
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with trio.move_on_after(timeout) as scope:
                await self.wait()
            if scope.cancelled_caught:
                log.warning("process did not stop in time and was killed", name=self.name, pid=process.pid)
                process.kill()
                with trio.CancelScope(shield=True):
                    await self.wait()
        return process.wait()


async def keep_running(child: Child, *, stopping: trio.Event, most_delay: float = 10.0) -> None:
    """Start the child again whenever it ends, with a growing pause, until `stopping` is set."""
    delay = 0.5
    while not stopping.is_set():
        started = trio.current_time()
        status = await child.wait()
        if stopping.is_set():
            return
        log.warning("process ended and is started again", name=child.name, status=status)
        if trio.current_time() - started > 30:
            delay = 0.5
        await trio.sleep(delay)
        delay = min(most_delay, delay * 2)
        child.start()
