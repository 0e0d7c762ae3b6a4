"""Common file work on tonfs, side by side with what else this machine has: the file system below, libfuse's C
passthrough (on PATH, or named by TONFS_BENCH_PASSTHROUGH) and `rclone mount`.

    .venv/bin/python benchmarks/files.py [--runs 3] [--quick] [--only create_4k,rename] [--json FILE]

Every piece of work runs on all targets in turn before the next one begins. Figures are the best of the runs; a ratio
says how many times as fast as the other tonfs is (1.0: as fast). CPU is what the serving process used for a unit,
what it did afterwards in the background included.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import file_targets
from file_targets import Target
from file_works import WORKS, Place, Sizes, Work, clean, make_archive

SETTLE = 0.4
"""Seconds for a server to finish what it does in the background: tonfs commits within 0.2 s."""
OTHERS = ("C", "floor", "below", "rclone")
QUICK = Sizes(megabytes=64, small=500, random_reads=500, random_writes=2000, folders=100, commits=30, appends=30)
PEAK_GOAL = 150 << 20


def drop_caches() -> None:
    if os.geteuid() == 0:
        Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")


def settle() -> None:
    os.sync()
    time.sleep(SETTLE)


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:40}\r", end="", file=sys.stderr, flush=True)


def measure(work: Work, target: Target, place: Place) -> None:
    """Once; keeps the best."""
    if work.prepare is not None:
        work.prepare(place)
        settle()
    if work.cold:
        drop_caches()
    cpu = target.cpu_seconds()
    started = time.perf_counter()
    units = work.body(place)
    seconds = time.perf_counter() - started
    settle()
    used = (target.cpu_seconds() - cpu) / units
    target.rates[work.name] = max(target.rates.get(work.name, 0.0), units / seconds)
    target.cpu[work.name] = min(target.cpu.get(work.name, used), used)


def needed(only: list[str]) -> list[Work]:
    """The named works, and those before them that leave what they need."""
    before = {
        "seq_read_cold": "seq_write", "seq_read_warm": "seq_write", "rand_read_4k_cold": "seq_write",
        "rand_write_4k": "seq_write", "par_read_cold": "seq_write", "stat_cold": "create_4k", "stat_warm": "create_4k",
        "ls_l_cold": "create_4k", "ls_l_warm": "create_4k", "read_4k_cold": "create_4k", "read_4k_warm": "create_4k",
        "rename": "create_4k", "unlink": "rename", "walk_cold": "untar", "rm_rf": "untar",
    }  # fmt: skip
    wanted = set(only or [work.name for work in WORKS])
    for name in list(wanted):
        while name in before:
            name = before[name]
            wanted.add(name)
    return [work for work in WORKS if work.name in wanted]


def run(targets: list[Target], works: list[Work], sizes: Sizes, runs: int) -> None:
    archive = make_archive(sizes)
    for number in range(runs):
        places = {target.name: Place(target.folder / f"run{number}", sizes, archive, number) for target in targets}
        for step, work in enumerate(works):
            first = (number + step) % len(targets)
            for target in targets[first:] + targets[:first]:
                progress(f"{number + 1}/{runs} {work.name:20} {target.name}")
                try:
                    measure(work, target, places[target.name])
                except (OSError, subprocess.SubprocessError, sqlite3.Error) as exc:
                    if target.name == "tonfs":
                        raise
                    target.failed[work.name] = str(exc)
                target.note_memory()
        for place in places.values():
            clean(place)
    progress("")


def rows_of(targets: list[Target], works: list[Work]) -> list[dict[str, Any]]:
    ours = next(target for target in targets if target.name == "tonfs")
    rows = []
    for work in works:
        ratios = {
            target.name: round(ours.rates[work.name] / target.rates[work.name], 3)
            for target in targets
            if target is not ours and work.name in target.rates
        }
        rows.append(
            {
                "work": work.name,
                "unit": work.unit,
                "rates": {t.name: round(t.rates[work.name], 2) for t in targets if work.name in t.rates},
                "cpu_us": {t.name: round(t.cpu[work.name] * 1e6, 1) for t in targets if t.pid and work.name in t.cpu},
                "ratios": ratios,
                "goal": work.goal,
            }
        )
    return rows


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def table(rows: list[dict[str, Any]], targets: list[Target]) -> str:
    names = [name for name in OTHERS if any(target.name == name for target in targets)]
    lines = [f"{'work':18}{'tonfs/s':>10} {'unit':6}" + "".join(f"{'x ' + name:>9}" for name in names)
             + f"{'goal':>6}{'cpu us':>9}{'C cpu':>8}"]  # fmt: skip
    for row in rows:
        ratios = "".join(f"{_ratio(row['ratios'].get(name)):>9}" for name in names)
        goal, reached = row["goal"], row["ratios"].get("C")
        mark = "" if goal is None or reached is None else ("+" if reached >= goal else "-")
        c_cpu = row["cpu_us"].get("C")
        lines.append(
            f"{row['work']:18}{row['rates']['tonfs']:>10.0f} {row['unit']:6}{ratios}"
            f"{'' if goal is None else f'{goal:.2f}{mark}':>6}{row['cpu_us']['tonfs']:>9.0f}"
            f"{'' if c_cpu is None else f'{c_cpu:.0f}':>8}"
        )
    memory = ", ".join(f"{t.name} {t.peak_rss / (1 << 20):.0f} MiB" for t in targets if t.pid is not None)
    missing = [name for name in OTHERS if name not in names]
    lines.append(f"peak RSS: {memory} (goal for tonfs: {PEAK_GOAL >> 20} MiB)")
    lines += [f"{t.name} failed at {name}: {reason}"[:110] for t in targets for name, reason in t.failed.items()]
    if missing:
        lines.append("not here: " + ", ".join(missing))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="an eighth of the work")
    parser.add_argument("--megabytes", type=int, help="size of the large file")
    parser.add_argument("--only", default="", help="names of works, separated by commas")
    known = ",".join(file_targets.MAKERS)
    parser.add_argument("--targets", default=known, help=f"some of {known} (default: all)")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where all the data goes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if strange := set(options.targets.split(",")) - set(file_targets.MAKERS):
        parser.error(f"there is no target {min(strange)!r}; there are {known}")
    sizes = QUICK if options.quick else Sizes()
    if options.megabytes:
        sizes = replace(sizes, megabytes=options.megabytes)
    works = needed([name for name in options.only.split(",") if name])
    base = Path(tempfile.mkdtemp(prefix="tonfs-bench-", dir=options.folder))
    targets: list[Target] = []
    try:
        targets = file_targets.start(options.targets.split(","), base)
        run(targets, works, sizes, options.runs)
    finally:
        for target in targets:
            target.stop()
        shutil.rmtree(base, ignore_errors=True)
    rows = rows_of(targets, works)
    print(table(rows, targets))
    if options.json:
        peaks = {target.name: target.peak_rss for target in targets if target.pid is not None}
        out = {"schema": "tonfs.bench.files/2", "runs": options.runs, "sizes": asdict(sizes), "peak_rss": peaks}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({**out, "rows": rows}, indent=2), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
