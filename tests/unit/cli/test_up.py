"""`tonfs up` beside, and after, another one of the same volume."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tonfs.cli import main, up
from tonfs.control.pidfile import PidFile
from tonfs.errors import Busy, NotRunning


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    assert main.run(["--volume", str(tmp_path / "v"), "init", "--network", "none"]) == 0
    return tmp_path / "v"


def test_what_a_killed_one_left_behind_is_no_sign_of_life(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (volume / "run" / "up.ready").write_text("ready\n")
    (volume / "run" / "up.pid").write_text(f"{os.getpid()}\n")  # the number belongs to somebody else meanwhile
    real = subprocess.Popen
    started: list[object] = []

    def start(argv: list[str], **words: object) -> subprocess.Popen[bytes]:
        started.append(argv)
        return real([sys.executable, "-c", "print('tonfs: No. [TF0001]'); raise SystemExit(1)"], **words)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(up.subprocess, "Popen", start)
    assert main.run(["--volume", str(volume), "up", str(volume.parent / "m"), "--detach"]) == 1
    assert started
    with pytest.raises(NotRunning):
        up.stop(volume)


def test_a_living_one_is_named_and_another_refused(volume: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys; from pathlib import Path; from tonfs.control.pidfile import PidFile\n"
        "with PidFile(Path(sys.argv[1])).lock('x', 'y'): print('held', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(volume / "run" / "up.pid")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert main.run(["--volume", str(volume), "up"]) == 1
        assert f"already runs for this volume (process {holder.pid})" in capsys.readouterr().err
        file = PidFile(volume / "run" / "up.pid")
        with pytest.raises(Busy, match=rf"It runs \(process {holder.pid}\)\."), file.lock("It runs", "Stop it."):
            pass
        holder.kill()
    assert not file.held()
    with file.lock("It runs", "Stop it."):
        assert file.held()
