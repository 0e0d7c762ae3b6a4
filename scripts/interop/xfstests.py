"""xfstests' quick group, where somebody built it: `make interop SUITES=DIR ONLY=xfstests`, the tree in DIR/xfstests.

It runs as root in a mount name space of its own, which has what the suite wants of a machine and nobody else sees: the
mount helper in /sbin, three users, two volumes. What fails, and why it may, is `EXPECTED` and docs/posix.md.
XFSTESTS="generic/013 generic/091" chooses other tests; XFSTESTS_KEEP=DIR keeps what the suite wrote.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from .kit import ROOT, TONFS, Judge, Missing, need, run
from .suites import built

GROUP = "generic/quick"
DEADLINE = 5400.0
USERS = ("fsgqa", "fsgqa2", "123456-fsgqa")

EXPECTED: dict[str, str] = {
    "generic/003": "access times are as on a mount with noatime",
    "generic/732": "mounts a volume a second time, which is refused",
}
"""Tests that fail -> why. One that passes after all is a failure of this list."""
SOMETIMES: dict[str, str] = {
    "generic/394": "ends by raising a limit, which takes the capability CAP_SYS_RESOURCE",
    "generic/564": "the same",
    "generic/451": "the kernel may keep a page that was read while asynchronous O_DIRECT wrote it",
}
"""Tests whose outcome does not depend on tonfs -> on what."""

CONFIG = """\
export FSTYP=fuse
export FUSE_SUBTYP=.tonfs
export TEST_DEV=ton://{base}/test-volume
export TEST_DIR={base}/test
export SCRATCH_DEV=ton://{base}/scratch-volume
export SCRATCH_MNT={base}/scratch
export TEST_FS_MOUNT_OPTS="-o dev,suid"
export MOUNT_OPTIONS="-o dev,suid"
export RESULT_BASE={base}/results
"""
MACHINE = """\
set -eu
findmnt -rnt fuse.tonfs -o TARGET | xargs -r umount -il  # copies of others' mounts would keep their fronts alive
mount -t overlay overlay -o lowerdir={base}/sbin:$(readlink -f /sbin) $(readlink -f /sbin)
mount --bind {base}/passwd /etc/passwd
mount --bind {base}/group /etc/group
mount --bind {base}/rc {suite}/common/rc
trap 'umount -il {base}/test {base}/scratch 2>/dev/null; true' EXIT
cd {suite}
./check {words} || true
"""


def _machine(base: Path, suite: Path) -> None:
    """What the private mount name space shows in place of the machine's own."""
    helper = ROOT / ".venv" / "bin" / "mount.tonfs"
    for name in ("sbin", "test", "scratch", "results", "tmp"):
        (base / name).mkdir()
    base.chmod(0o755)
    (base / "tmp").chmod(0o1777)
    for name in ("mount.tonfs", "mount.fuse.tonfs"):
        (base / "sbin" / name).symlink_to(helper)
    for name, line in (("passwd", "{0}:*:{1}:{1}::/tmp:/bin/bash\n"), ("group", "{0}:*:{1}:\n")):
        text = Path("/etc", name).read_text(encoding="utf-8")
        here = {entry.split(":", 1)[0] for entry in text.splitlines()}
        text += "".join(line.format(user, 70001 + n) for n, user in enumerate(USERS) if user not in here)
        (base / name).write_text(text, encoding="utf-8")
    # The suite knows two FUSE file systems whose type says more than "fuse"; ours is the third.
    rules = (suite / "common" / "rc").read_text(encoding="utf-8")
    (base / "rc").write_text(rules.replace("s/fuse.glusterfs/glusterfs/", "s/fuse.tonfs/fuse/"), encoding="utf-8")
    (base / "config").write_text(CONFIG.format(base=base), encoding="ascii")
    for volume in ("test-volume", "scratch-volume"):
        run(TONFS, "--volume", str(base / volume), "init", "--network", "none")


def _tests(told: str, title: str) -> list[str]:
    """One of the lists at the end of what `check` says."""
    found = re.search(rf"^{title}: (.*)$", told, re.M)
    return found[1].split() if found else []


def judge(base: Path) -> str:
    check = built("xfstests/check", "check")
    if not (check.parent / "ltp" / "fsstress").exists():
        raise Missing("a built tree of xfstests")
    unshare = need("unshare")
    _machine(base, check.parent)
    words = os.environ.get("XFSTESTS", f"-g {GROUP}")
    script = MACHINE.format(base=base, suite=check.parent, words=words)
    around = {**os.environ, "HOST_OPTIONS": str(base / "config"), "TMPDIR": str(base / "tmp")}
    with (base / "told").open("w+", encoding="utf-8", errors="replace") as out:
        subprocess.run(
            [unshare, "--mount", "--propagation", "private", "bash", "-c", script],
            env=around, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, check=False, timeout=DEADLINE,
        )  # fmt: skip
        out.seek(0)
        told = out.read()
    if keep := os.environ.get("XFSTESTS_KEEP"):
        shutil.copytree(base / "results", Path(keep) / "results", dirs_exist_ok=True)
        shutil.copy(base / "told", keep)
    ran, absent, failed = _tests(told, "Ran"), _tests(told, "Not run"), _tests(told, "Failures")
    if not ran:
        raise RuntimeError(told[-400:])
    new = sorted(set(failed) - set(EXPECTED) - set(SOMETIMES))
    mended = sorted((set(ran) & set(EXPECTED)) - set(failed))
    if new or mended:
        raise RuntimeError(f"failed: {' '.join(new) or '-'}; expected to fail, and did not: {' '.join(mended) or '-'}")
    passed = len(ran) - len(absent) - len(failed)
    explained = f" ({', '.join(failed)})" if failed else ""
    return f"{passed} passed, {len(absent)} do not apply, {len(failed)} failed for published reasons{explained}"


JUDGES = (Judge("xfstests", judge),)
