"""Public suites for file systems, as they come from package registries: pjdfstest (crates.io), fio, dbench, stress-ng.

What each leaves out, and why, is explained in docs/posix.md.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

from .kit import JUDGES_DIR, Judge, Missing, between, mounted, need, need_root, run, run_disturbed

PJDFSTEST = JUDGES_DIR / "cargo" / "bin" / "pjdfstest"
PJDFSTEST_SETTINGS = """\
[features]
posix_fallocate = {{}}
rename_ctime = {{}}
stat_st_birthtime = {{}}
utime_now = {{}}
utimensat = {{}}

[settings]
naptime = 0.02
allow_remount = {remount}

[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"""
# Its read-only tests call mount(8). Flags of the kernel need no helper (-i), and a remount to read-only waits for the
# release of the file that the test before has just closed, which FUSE sends a moment later.
PATIENT_MOUNT = """\
#!/bin/sh
for try in 1 2 3 4 5 6 7 8 9 10; do {mount} -i "$@" && exit 0; sleep 0.1; done
exit 32
"""


def pjdfstest(base: Path) -> str:
    need_root()
    if not PJDFSTEST.exists():
        raise Missing("pjdfstest (cargo)")
    tools = base / "tools"
    tools.mkdir()
    (tools / "mount").write_text(PATIENT_MOUNT.format(mount=need("mount")), encoding="ascii")
    (tools / "mount").chmod(0o755)
    base.chmod(0o755)
    held: list[str] = []
    with mounted(base) as point, tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        (point / "tests").mkdir()
        (point / "tests").chmod(0o777)
        # In one run the suite leaves a removed file open, so that no file system can become read-only any more.
        for remount, least, words in (("false", 384, ()), ("true", 13, ("erofs",))):
            settings = base / f"remount-{remount}.toml"
            settings.write_text(PJDFSTEST_SETTINGS.format(remount=remount), encoding="ascii")
            told = run(
                str(PJDFSTEST), "-c", str(settings), "-p", str(point / "tests"), "-s", other, *words,
                env={"PATH": f"{tools}:{os.environ['PATH']}"}, deadline=400, check=False,
            )  # fmt: skip
            summary = re.search(r"(\d+) failed, (\d+) skipped, (\d+) passed", told)
            failed = re.findall(r"^(\S+) +FAILED\n((?:\t.*\n)*)", told, re.M)
            if summary is None or failed or int(summary[3]) < least:
                raise RuntimeError(f"{summary[0] if summary else told[-300:]}; {failed[:5]}")
            held.append(summary[0])
    return f"{held[0]}; of its read-only tests: {held[1]}"


FIO_SHAPES: dict[str, tuple[str, ...]] = {
    "sequential": ("--rw=write", "--bs=64k", "--size=32m", "--end_fsync=1"),
    "random": ("--rw=randwrite", "--bs=4k", "--size=16m", "--end_fsync=1"),
    "mmap": ("--rw=randwrite", "--bs=4k", "--size=16m", "--ioengine=mmap"),
    "append": ("--rw=write", "--bs=4k", "--size=8m", "--file_append=1"),
    "libaio and O_DIRECT": (
        "--rw=randwrite",
        "--bs=4k",
        "--size=8m",
        "--ioengine=libaio",
        "--iodepth=16",
        "--direct=1",
    ),
    "4 jobs": ("--rw=randwrite", "--bs=4k", "--size=4m", "--numjobs=4", "--fsync=64"),
}


def fio(base: Path) -> str:
    program = need("fio")
    with mounted(base) as point:
        for again in ((), ("--verify_only",)):
            for number, (shape, words) in enumerate(FIO_SHAPES.items()):
                if again and shape == "append":  # it would look for its bytes behind them
                    continue
                told = run(
                    program, f"--name=job{number}", f"--directory={point}", "--verify=crc32c", "--verify_fatal=1",
                    "--do_verify=1", "--output-format=json", *words, *again, cwd=base,
                )  # fmt: skip
                jobs = json.loads(told[told.index("{") :])["jobs"]
                if any(job["error"] or not job["read"]["total_ios"] for job in jobs):
                    raise RuntimeError(f"{shape}: errors, or nothing was read back")
            between(point)
    return f"verified crc32c: {', '.join(FIO_SHAPES)}"


def dbench(base: Path) -> str:
    program = need("dbench")
    clients = Path("/usr/share/dbench/client.txt")
    if not clients.exists():
        raise Missing(str(clients))
    with mounted(base) as point:
        told = run(program, "-D", str(point), "-c", str(clients), "-t", "10", "2")
    # It ends with 0 though an open or a read of its clients failed. Beside another dbench
    # it says "failed to create barrier semaphore" and goes on.
    if failures := [line for line in told.splitlines() if "failed" in line and "barrier semaphore" not in line]:
        raise RuntimeError("\n".join(failures[:10]))
    if "Throughput" not in told:
        raise RuntimeError(told[-300:])
    return told[told.index("Throughput") :].strip()


STRESSORS = (
    "access",
    "chdir",
    "chmod",
    "chown",
    "dentry",
    "dir",
    "dirdeep",
    "dirmany",
    "fcntl",
    "filename",
    "flock",
    "fstat",
    "getdent",
    "hdd",
    "iomix",
    "locka",
    "lockf",
    "lockofd",
    "mknod",
    "open",
    "rename",
    "seek",
    "sync-file",
    "touch",
    "utime",
    "xattr",
)


def stress(base: Path) -> str:
    program = need("stress-ng")
    with mounted(base) as point:
        # One after the other would take a minute; at once they also disturb each other, which is the point.
        run(
            program, "--temp-path", str(point), "--verify", "--oomable", "-t", "10", "--filename-opts", "posix",
            "--hdd-bytes", "16m", "--iomix-bytes", "16m", "--seek-size", "8m", "--sync-file-bytes", "16m",
            "--chdir-dirs", "256", *(word for name in STRESSORS for word in (f"--{name}", "1")),
        )  # fmt: skip
        if left := os.listdir(point):
            raise RuntimeError(f"left behind: {left[:5]}")
    return f"{len(STRESSORS)} stressors at once, --verify"


def built(*places: str) -> Path:
    """A program below SUITES that somebody built, wherever its tree has it."""
    need_root()
    if not (named := os.environ.get("SUITES", "")):
        raise Missing("SUITES=DIR, where somebody built it")
    for place in places:
        if (found := Path(named).resolve() / place).exists():
            return found
    raise Missing(f"{places[0]} below SUITES")


def pjdfstest_classic(base: Path) -> str:
    """The original, in C and shell: its tests print TAP, which prove(1) of Perl counts."""
    tests, prove = built("pjdfstest/tests"), need("prove")
    base.chmod(0o755)
    with mounted(base) as point:
        told = run(prove, "-r", "-Q", "-j", "3", str(tests), cwd=point, deadline=900)
    return re.sub(r"\s+", " ", told[told.index("Files=") :]).strip()


def libfuse_syscalls(base: Path) -> str:
    program = built("test_syscalls", "libfuse/build/test/test_syscalls", "libfuse/test/test_syscalls")
    with mounted(base) as point:
        (point / "t").mkdir()
        for words in ((), ("-u",)):
            told = run(str(program), str(point / "t"), *words)
            if "FAILED" in told:
                raise RuntimeError(told[-400:])
    return "all, also with files unlinked while they are open (-u)"


FSX_MODES: dict[str, tuple[str, ...]] = {
    "mmap": ("-N", "10000"),
    "no mmap": ("-R", "-W", "-N", "10000"),
    "O_DIRECT": ("-R", "-W", "-Z", "-r", "512", "-w", "512", "-t", "512", "-N", "5000"),
    "AIO": ("-A", "-N", "4000"),
    "large, flushed": ("-f", "-l", "1000000", "-o", "200000", "-N", "3000"),
}


def fsx(base: Path) -> str:
    program = built("xfstests/ltp/fsx", "ltp/fsx", "fsx")
    with mounted(base) as point:
        for seed, (mode, words) in enumerate(FSX_MODES.items(), 1):
            told = run_disturbed(point, str(program), "-q", "-S", str(seed), *words, f"file{seed}", deadline=300)
            if "A-OK" not in told:
                raise RuntimeError(f"{mode}: {told[-300:]}")
    return f"operations A-OK: {', '.join(FSX_MODES)}"


def fsstress(base: Path) -> str:
    program = built("xfstests/ltp/fsstress", "ltp/fsstress", "fsstress")
    with mounted(base) as point:
        run(str(program), "-d", str(point / "s"), "-n", "1000", "-p", "4", "-s", "42", deadline=300)
        shutil.rmtree(point / "s")
    return "4 processes, 1000 operations each"


JUDGES = (
    Judge("pjdfstest", pjdfstest),
    Judge("fio", fio),
    Judge("dbench", dbench),
    Judge("stress-ng", stress),
    Judge("pjdfstest-classic", pjdfstest_classic),
    Judge("libfuse-syscalls", libfuse_syscalls),
    Judge("fsx", fsx),
    Judge("fsstress", fsstress),
)
