"""Runs the judges, says what it ran and what it could not find; exit 1 on a failure.

Words on the command line choose groups or judges (`make interop ONLY="files pjdfstest"`); none means all.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

from . import agent, bags, files, fuzz, market, network, s3, s3_tests, suites, xfstests
from .kit import Judge, Missing

GROUPS: dict[str, tuple[Judge, ...]] = {
    "files": files.JUDGES,
    "suites": (*suites.JUDGES, *xfstests.JUDGES),
    "agent": agent.JUDGES,
    "s3": (*s3.JUDGES, *s3_tests.JUDGES),
    "network": (*network.JUDGES, *fuzz.JUDGES),
    "bags": bags.JUDGES,
    "market": market.JUDGES,
}


def chosen(words: list[str]) -> list[Judge]:
    known = {*GROUPS, *(judge.name for judges in GROUPS.values() for judge in judges)}
    if strange := [word for word in words if word not in known]:
        sys.exit(f"interop: there is no judge '{strange[0]}'; there are: {', '.join(sorted(known))}")
    return [
        judge
        for group, judges in GROUPS.items()
        for judge in judges
        if not words or group in words or judge.name in words
    ]


def verdict(judge: Judge) -> tuple[bool, str]:
    base = Path(tempfile.mkdtemp(prefix="tonfs-interop-", dir="/var/tmp"))
    try:
        return True, f"passed: {judge.check(base)}"
    except Missing as exc:
        return True, f"not run, for want of {exc}"
    except Exception as exc:  # whatever a judge trips over is its verdict
        return False, f"FAILED: {exc}"
    finally:
        shutil.rmtree(base, ignore_errors=True)


def main(words: list[str]) -> int:
    failed = 0
    for judge in chosen(words):
        started = time.monotonic()
        held, text = verdict(judge)
        failed += not held
        print(f"interop {judge.name} ({time.monotonic() - started:.1f} s): {text}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
