"""ceph/s3-tests against `tonfs s3 serve`: python scripts/s3_suite.py CHECKOUT --python PY [--python PY2] [--tier MUST]

CHECKOUT is a copy of https://github.com/ceph/s3-tests, PY a Python that has its requirements. A test counts as passed
when it passes under one of the Pythons: some need `awscrt` in the client, some cannot pass with it on any server.
Exit 1 when a MUST test fails, fewer than 60 SHOULD tests pass, or the door answered 5xx other than 501.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
TONFS = str(ROOT / ".venv" / "bin" / "tonfs")
GROUPS = Path(__file__).with_suffix(".txt")
BARS = {"MUST": 208, "SHOULD": 60}
SECTIONS = ("s3 main", "s3 alt", "s3 tenant", "iam", "iam root", "iam alt root")
DEADLINE = 3600.0


def groups() -> dict[tuple[str, str], list[str]]:
    """(tier, group) -> `FILE::TEST`."""
    found: dict[tuple[str, str], list[str]] = {}
    names: list[str] = []
    for line in GROUPS.read_text().splitlines():
        if line.startswith("["):
            tier, _, group = line[1:-1].partition(" ")
            names = found[tier, group] = []
        elif line and not line.startswith("#"):
            names.append(line)
    return found


def tonfs(volume: Path, *words: str) -> str:
    done = subprocess.run([TONFS, "--volume", str(volume), *words], capture_output=True, text=True, check=True)
    return done.stdout


@contextmanager
def door(base: Path) -> Iterator[int]:
    """A fresh volume without a network, served on loopback; gives the port."""
    volume = base / "volume"
    tonfs(volume, "init", "--network", "none")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    keys = [json.loads(tonfs(volume, "s3", "key", "new", "--json")) for _ in range(3)]
    (base / "s3tests.conf").write_text(configuration(port, keys))
    log = (base / "door.log").open("wb")
    command = [TONFS, "--volume", str(volume), "s3", "serve", "--listen", f"127.0.0.1:{port}"]
    process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(300):
            if socket.socket().connect_ex(("127.0.0.1", port)) == 0:
                break
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(60)
        log.close()


def configuration(port: int, keys: list[dict[str, str]]) -> str:
    lines = ["[DEFAULT]", "host = 127.0.0.1", f"port = {port}", "is_secure = False", "ssl_verify = False"]
    lines += ["[fixtures]", "bucket prefix = tonfs-{random}-"]
    for number, section in enumerate(SECTIONS):
        key = keys[number % len(keys)]
        lines += [f"[{section}]", f"access_key = {key['access_key']}", f"secret_key = {key['secret_key']}"]
        lines += ["display_name = tonfs", "user_id = tonfs", "email = tonfs@localhost", "api_name =", "tenant ="]
    return "\n".join(lines) + "\n"


def run_suite(python: str, checkout: Path, base: Path, tests: list[str], number: int) -> dict[str, str]:
    """`FILE::TEST` -> "passed", or why not."""
    report = base / f"report{number}.xml"
    environment = {**os.environ, "S3TEST_CONF": str(base / "s3tests.conf"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", "--tb=short"]
    command += [f"s3tests/functional/{test}" for test in tests]
    with (base / f"suite{number}.log").open("wb") as log:
        subprocess.run(command, cwd=checkout, env=environment, stdout=log, stderr=log, timeout=DEADLINE, check=False)
    found: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}.py::{case.get('name', '').partition('[')[0]}"
        bad = [child for child in case if child.tag in ("failure", "error", "skipped")]
        verdict = f"{bad[0].tag}: {(bad[0].get('message') or '')[:160]}" if bad else "passed"
        if found.get(name, "passed") == "passed":
            found[name] = verdict
    return found


def bad_answers(log: Path) -> Counter[str]:
    """5xx other than 501 in the door's log."""
    found: Counter[str] = Counter()
    for line in log.read_text("utf-8", "replace").splitlines():
        status = re.search(r'"?status"?[=:] ?(5\d\d)', line)
        if status and status[1] != "501":
            operation = re.search(r'"?operation"?[=:] ?"?(\w+)', line)
            found[f"{status[1]} {operation[1] if operation else '?'}"] += 1
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--python", action="append", required=True)
    parser.add_argument("--tier", action="append")
    parser.add_argument("--group", action="append")
    parser.add_argument("--test", action="append")
    parser.add_argument("--keep", type=Path, help="directory for logs and reports")
    options = parser.parse_args()
    wanted = {
        place: names
        for place, names in groups().items()
        if (not options.tier or place[0] in options.tier) and (not options.group or place[1] in options.group)
    }
    if options.test:
        wanted = {("ASKED", "for"): options.test}
    tests = [name for names in wanted.values() for name in names]
    with tempfile.TemporaryDirectory(prefix="tonfs-s3-suite-", dir="/var/tmp") as scratch:
        base = options.keep or Path(scratch)
        base.mkdir(parents=True, exist_ok=True)
        with door(base):
            runs = [run_suite(python, options.checkout, base, tests, n) for n, python in enumerate(options.python)]
        errors = bad_answers(base / "door.log")
    return judge(wanted, runs, errors)


def judge(wanted: dict[tuple[str, str], list[str]], runs: list[dict[str, str]], errors: Counter[str]) -> int:
    totals: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for (tier, group), names in wanted.items():
        failed = [name for name in names if not any(run.get(name) == "passed" for run in runs)]
        totals[tier] += len(names) - len(failed)
        sizes[tier] += len(names)
        print(f"{tier} {group}: {len(names) - len(failed)} of {len(names)}")
        for name in failed:
            print(f"    {name}: {runs[0].get(name, 'not run')}")
    for answer, count in sorted(errors.items()):
        print(f"5xx: {answer} x {count}")
    print(", ".join(f"{tier} {totals[tier]}/{sizes[tier]}" for tier in sizes))
    short = [tier for tier in sizes if totals[tier] < min(BARS.get(tier, 0), sizes[tier])]
    return 1 if short or errors else 0


if __name__ == "__main__":
    sys.exit(main())
