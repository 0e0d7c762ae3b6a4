"""A process that looks like a provider to its supervisor: `python provider_process.py CONFIG [MODE]`.

It answers status and fault on its control socket and writes each fault it is told to `faults.txt`. Modes: `crash`
ends with status 3 as soon as a fault `silent` comes; `broken` ends at once.
"""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from typing import Any

import trio

from tonfs.control import serve
from tonfs.control.process import die_with_parent


async def main(config: Path, mode: str) -> None:
    directory = Path(tomllib.loads(config.read_text(encoding="utf-8"))["directory"])

    async def status(params: dict[str, Any]) -> dict[str, Any]:
        return {"pid": os.getpid()}

    async def fault(params: dict[str, Any]) -> dict[str, Any]:
        with (directory / "faults.txt").open("a", encoding="utf-8") as file:
            file.write(f"{params['kind']}\n")
        if mode == "crash" and params["kind"] == "silent":
            os._exit(3)
        return {}

    await serve(directory / "provider.sock", {"status": status, "fault": fault})


if __name__ == "__main__":
    die_with_parent()
    if sys.argv[2:] == ["broken"]:
        sys.exit("nothing works")
    trio.run(main, Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
