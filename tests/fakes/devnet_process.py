"""A devnet whose providers are stand-ins: `python devnet_process.py STATE NUMBER`."""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from tonfs.devnet import daemon
from tonfs.devnet.state import StateDir


def command(config: Path) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("provider_process.py")), str(config)]


if __name__ == "__main__":
    trio.run(daemon.run, daemon.Options(StateDir(Path(sys.argv[1])), int(sys.argv[2]), 0.25, command))
