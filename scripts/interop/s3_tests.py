"""ceph/s3-tests against `tonfs s3 serve`, by the groups of `s3_tests.txt`.

`make interop SUITES=DIR` runs it when DIR holds a checkout `s3-tests` of https://github.com/ceph/s3-tests; by hand:
`python -m scripts.interop.s3_tests CHECKOUT --python PY [--python PY2] [--tls] [--tier MUST] [--group multipart]
[--rest]`.

A test counts as passed when it passes under one of the Pythons: some need `awscrt` in the client, some cannot pass with
it on any server. The suite fails when a MUST test fails, fewer than 60 SHOULD tests pass, or the door answered 5xx
other than 501 (`--rest` also runs everything that tonfs does not do, to see only that).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from .kit import JUDGES_DIR, TONFS, Judge, Missing, free_port, run
from .s3 import certificate

GROUPS = Path(__file__).with_suffix(".txt")
PYTHONS = tuple(JUDGES_DIR / name / "bin" / "python" for name in ("s3tests", "s3tests-crt"))
LEAST_SHOULD = 60
SECTIONS = ("s3 main", "s3 alt", "s3 tenant", "iam", "iam root", "iam alt root")
FILES = ("test_s3.py", "test_headers.py")
DEADLINE = 5400.0
NOT_OVER_TLS = frozenset({"test_headers.py::test_object_create_bad_contentlength_empty"})
"""It empties Content-Length, which boto3 takes away again over TLS, where it sends chunks."""

Place = tuple[str, str]
"""(tier, group)"""


def groups() -> dict[Place, list[str]]:
    """The tests of each group as `FILE::TEST`."""
    found: dict[Place, list[str]] = {}
    names: list[str] = []
    for line in GROUPS.read_text(encoding="ascii").splitlines():
        if line.startswith("["):
            tier, _, group = line[1:-1].partition(" ")
            names = found[tier, group] = []
        elif line and not line.startswith("#"):
            names.append(line)
    return found


@contextmanager
def door(base: Path, *, tls: bool) -> Iterator[None]:
    """A fresh volume without a network, served on loopback; writes the suite's configuration."""
    volume, port = base / "volume", free_port()
    run(TONFS, "--volume", str(volume), "init", "--network", "none")
    keys = [json.loads(run(TONFS, "--volume", str(volume), "s3", "key", "new", "--json")) for _ in range(3)]
    (base / "s3tests.conf").write_text(configuration(port, keys, tls=tls), encoding="utf-8")
    command = [TONFS, "--volume", str(volume), "s3", "serve", "--listen", f"127.0.0.1:{port}"]
    if tls:
        public, private = certificate(base)
        command += ["--tls-certificate", str(public), "--tls-key", str(private)]
    with (base / "door.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            end = time.monotonic() + 60
            while b"S3 listens" not in (base / "door.log").read_bytes():
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError("the S3 door does not listen")
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait(60)


def configuration(port: int, keys: list[dict[str, str]], *, tls: bool) -> str:
    # The suite can trust the system's authorities or nobody; the stock clients (`s3.py`) do check the certificate.
    lines = ["[DEFAULT]", "host = 127.0.0.1", f"port = {port}", f"is_secure = {tls}", "ssl_verify = False"]
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
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", "--tb=no"]
    command += [f"s3tests/functional/{test}" for test in tests]
    with (base / f"suite{number}.log").open("wb") as log:
        subprocess.run(command, cwd=checkout, env=environment, stdout=log, stderr=log, timeout=DEADLINE, check=False)
    found: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}.py::{case.get('name', '').partition('[')[0]}"
        bad = [child for child in case if child.tag in ("failure", "error", "skipped")]
        verdict = f"{bad[0].tag}: {(bad[0].get('message') or '').splitlines()[0][:160]}" if bad else "passed"
        if found.get(name, "passed") == "passed":
            found[name] = verdict
    return found


def bad_answers(log: Path) -> Counter[str]:
    """5xx other than 501, and what the door itself took for errors."""
    found: Counter[str] = Counter()
    for line in log.read_text("utf-8", "replace").splitlines():
        status = re.search(r" status=(5\d\d)\b", line)
        if status and status[1] != "501":
            operation = re.search(r" operation=(\w+)", line)
            found[f"{status[1]} {operation[1] if operation else '?'}"] += 1
        if re.match(r"\S+ (error|warning) ", line) or "Traceback" in line:
            found[line[9:120]] += 1
    return found


def report(wanted: dict[Place, list[str]], runs: list[dict[str, str]], errors: Counter[str]) -> tuple[str, bool]:
    """(one line, whether the bars are reached); prints each test that failed."""
    passed: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for (tier, group), names in wanted.items():
        failed = [name for name in names if not any(each.get(name) == "passed" for each in runs)]
        passed[tier] += len(names) - len(failed)
        total[tier] += len(names)
        print(f"{tier} {group}: {len(names) - len(failed)} of {len(names)}")
        for name in failed:
            print(f"    {name}: {runs[0].get(name, 'not run')}")
    for answer, count in sorted(errors.items()):
        print(f"{count} x {answer}")
    short = passed["MUST"] < total["MUST"] or passed["SHOULD"] < min(LEAST_SHOULD, total["SHOULD"])
    text = ", ".join(f"{tier} {passed[tier]} of {total[tier]}" for tier in total)
    return f"{text}; {sum(errors.values())} answers 5xx", not short and not errors


def check(
    base: Path, checkout: Path, pythons: list[str], wanted: dict[Place, list[str]], *, rest: bool, tls: bool
) -> tuple[str, bool]:
    if tls:
        wanted = {place: [name for name in names if name not in NOT_OVER_TLS] for place, names in wanted.items()}
    tests = list(FILES) if rest else [name for names in wanted.values() for name in names]
    with door(base, tls=tls):
        runs = [run_suite(python, checkout, base, tests, number) for number, python in enumerate(pythons)]
    return report(wanted, runs, bad_answers(base / "door.log"))


def s3_tests(base: Path, *, tls: bool = False) -> str:
    checkout = Path(os.environ.get("SUITES") or "/nonexistent") / "s3-tests"
    if not checkout.is_dir():
        raise Missing("s3-tests below SUITES")
    pythons = [str(python) for python in PYTHONS if python.exists()]
    if not pythons:
        raise Missing("the clients of s3-tests (.judges/s3tests)")
    text, held = check(base, checkout, pythons, groups(), rest=False, tls=tls)
    if not held:
        raise RuntimeError(text)
    return text


JUDGES = (Judge("s3-tests", s3_tests), Judge("s3-tests-tls", partial(s3_tests, tls=True)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--python", action="append", required=True)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--tier", action="append")
    parser.add_argument("--group", action="append")
    parser.add_argument("--test", action="append")
    parser.add_argument("--rest", action="store_true")
    parser.add_argument("--keep", type=Path, help="directory for logs and reports")
    options = parser.parse_args()
    wanted = {
        place: names
        for place, names in groups().items()
        if (not options.tier or place[0] in options.tier) and (not options.group or place[1] in options.group)
    }
    if options.test:
        wanted = {("MUST", "asked for"): options.test}
    with tempfile.TemporaryDirectory(prefix="tonfs-s3-tests-", dir="/var/tmp") as scratch:
        base = (options.keep or Path(scratch)).absolute()
        base.mkdir(parents=True, exist_ok=True)
        checkout = options.checkout.absolute()
        text, held = check(base, checkout, options.python, wanted, rest=options.rest, tls=options.tls)
    print(text)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
