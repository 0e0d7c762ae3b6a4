"""`tonfs mount`: the file system of a volume and its front, in the background unless told otherwise."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from ..control.process import die_with_parent, start_failure
from ..control.systemd import notify
from ..errors import TimedOut, TonfsError, UsageError, from_code
from ..system import from_os
from .common import Context, pass_context, volume_option

READY_VARIABLE: Final = "TONFS_READY_FD"
START_TIMEOUT: Final = 120.0


@click.command(help="Mount a volume at DIR. Returns when the mount answers.")
@click.argument("directory", type=click.Path(path_type=Path, readable=False))
@click.option("-o", "options", multiple=True, metavar="OPTS", help="Mount options, separated by commas.")
@click.option("--foreground", is_flag=True, help="Stay in the foreground; Ctrl-C unmounts.")
@volume_option
@pass_context
def command(context: Context, directory: Path, options: tuple[str, ...], foreground: bool) -> None:
    from ..fuse import parse_options

    parsed = parse_options(options)
    if parsed.remount:
        raise UsageError("This changes a mount that exists.", hint=f"As root: mount -o remount,… {directory}")
    if parsed.volume is not None:
        context.volume_name = parsed.volume
    context.settings()
    directory = Path(os.path.abspath(directory))
    if not foreground:
        extra = ["-v"] if context.verbose else ["--log-format", context.log_format]
        start_front(context.volume, directory, options, extra)
        return
    die_with_parent()
    _serve(context, directory, parsed)


def _serve(context: Context, directory: Path, parsed: Any) -> None:
    """The front itself. Whoever waits on the pipe is told how the start went."""
    from ..front import FrontConfig, run_front

    descriptor = os.environ.pop(READY_VARIABLE, "")
    report = int(descriptor) if descriptor.isdigit() else None

    def tell(message: dict[str, str]) -> None:
        nonlocal report
        if report is not None:
            os.write(report, json.dumps(message).encode())
            os.close(report)
            report = None

    context.configure_log(logging.INFO)
    config = FrontConfig(
        volume=context.volume,
        settings=context.settings(),
        mount=directory,
        options=parsed,
        s3_listen=parsed.s3 or "",
    )

    def ready() -> None:
        tell({})
        notify("READY=1", f"STATUS={context.volume} is mounted at {directory}")

    try:
        run_front(config, ready)
    except TonfsError as exc:
        if report is None:
            raise
        tell({"code": exc.code, "message": exc.message, "hint": exc.hint})
        sys.exit(exc.exit_code)


def start_front(volume: Path, directory: Path, options: Sequence[str], extra: Sequence[str] = ()) -> None:
    """Run ourselves with --foreground in a session of its own, once the front before has ended. Raises what the front
    could not do."""
    from ..front.turn import wait_for_turn

    wait_for_turn(volume, say=lambda text: click.echo(text, err=True))
    log_path = volume / "log" / "front.log"
    try:
        log_path.parent.mkdir(mode=0o700, exist_ok=True)
        log_path.open("ab").close()
    except OSError as exc:
        raise from_os(exc, f"The volume {volume} cannot be written, which a mount needs, also with ro") from None
    words = [*extra, "--volume", str(volume), "mount", os.path.abspath(directory), "--foreground"]
    for option in options:
        words += ["-o", option]
    reader, writer = os.pipe()
    with log_path.open("ab") as output:
        before = output.tell()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tonfs", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=(writer,),
            env={**os.environ, READY_VARIABLE: str(writer)},
        )
    os.close(writer)
    answer = _read_all(reader, process)
    if answer is None:
        raise start_failure("The front", log_path, before)
    if answer:
        raise from_code(answer.get("code", ""), answer.get("message", ""), answer.get("hint", ""))


def _read_all(reader: int, process: subprocess.Popen[bytes]) -> dict[str, str] | None:
    """What the front says about its start; None when it ended without a word."""
    import select

    data = b""
    end = time.monotonic() + START_TIMEOUT
    try:
        while True:
            left = end - time.monotonic()
            if left <= 0 or not select.select([reader], [], [], left)[0]:
                process.terminate()
                raise TimedOut("The front did not start in time.")
            chunk = os.read(reader, 65536)
            if not chunk:
                break
            data += chunk
    finally:
        os.close(reader)
    if not data:
        return None
    answer: dict[str, str] = json.loads(data)
    return answer
