"""The coverage-guided fuzzer on every parser of foreign bytes, a few seconds each (`FUZZ_SECONDS=600` for a night)."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.targets import TARGETS

from .kit import JUDGES_DIR, ROOT, Judge, Missing

PYTHON = JUDGES_DIR / "fuzz" / "bin" / "python"
SECONDS = int(os.environ.get("FUZZ_SECONDS", "2"))
AT_ONCE = 2


def _fuzz(name: str, base: Path) -> int:
    """How many inputs were tried. Raises RuntimeError with the input that broke the parser."""
    folder = base / name
    path = os.pathsep.join((str(ROOT), sysconfig.get_path("platlib")))
    done = subprocess.run(
        [str(PYTHON), "-m", "tests.fuzz.guided", name, str(SECONDS), str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS + 60,
    )
    if done.returncode != 0:
        found = [file.read_bytes().hex() for file in folder.glob("found-*")]
        raise RuntimeError(f"{name} breaks on {found[:1]}: {done.stderr[-600:]}")
    counts = [line.split()[-1] for line in done.stderr.splitlines() if "number_of_executed_units" in line]
    return int(counts[0]) if counts else 0


def fuzz(base: Path) -> str:
    if not PYTHON.exists():
        raise Missing("atheris (.judges/fuzz)")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        tried = list(pool.map(lambda name: _fuzz(name, base), TARGETS))
    if not all(tried):
        raise RuntimeError(f"the fuzzer tried nothing on {[n for n, t in zip(TARGETS, tried, strict=True) if not t]}")
    return f"{len(TARGETS)} parsers, {sum(tried)} inputs guided by coverage, none broke one"


JUDGES = (Judge("fuzz", fuzz),)
