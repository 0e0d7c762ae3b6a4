"""A devnet in real processes, without providers, shared by the tests of a module."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

INTERVAL = "0.25s"


@dataclass
class Devnet:
    """The command line of one state directory."""

    state: Path

    def run(self, *words: str, code: int = 0, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """`tonfs devnet WORDS --state …`; fails the test unless it exits with `code`."""
        argv = [sys.executable, "-m", "tonfs", "devnet", *words, "--state", str(self.state)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return done

    def json(self, *words: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.run(*words, "--json").stdout)
        assert value["schema"] == f"tonfs.devnet-{words[0]}/1"
        return value

    def up(self, *words: str, interval: str = INTERVAL) -> None:
        self.run("up", "--providers", "0", "--block-interval", interval, "--detach", *words)

    def down(self) -> None:
        self.run("down")

    @property
    def config(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.state / "global.config.json").read_text(encoding="utf-8"))
        return value


def alive(pid: int) -> bool:
    """A zombie is not alive."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.fixture(scope="module")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    net = Devnet(tmp_path_factory.mktemp("devnet"))
    net.up()
    yield net
    net.down()
