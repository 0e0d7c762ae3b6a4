"""Mounts of users who are not root: by fusermount3, in a mount name space with a /dev/fuse and a fuse.conf of its own.

The users may read everything (a capability), because Python and the checkout may lie where only root can look.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .front import TONFS

pytestmark = pytest.mark.root
ANN, BOB = 65534, 1
"""`nobody` and `daemon`: fusermount3 wants users that /etc/passwd knows."""


@pytest.fixture
def base(root_and_fuse: None) -> Iterator[Path]:
    """ann's directory, with a volume `v`; everybody may look in, as fusermount3 wants it."""
    for program in ("unshare", "setpriv", "fusermount3"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if not os.stat(str(shutil.which("fusermount3"))).st_mode & stat.S_ISUID:
        pytest.skip("fusermount3 is not set-user-ID root")
    path = Path(tempfile.mkdtemp(prefix="tonfs-user-", dir="/tmp"))
    path.chmod(0o755)
    os.chown(path, ANN, ANN)
    try:
        os.mknod(path / "fuse", 0o666 | stat.S_IFCHR, os.makedev(10, 229))
        (path / "fuse").chmod(0o666)
        (path / "fuse.conf").touch()
        if run(path, "ann init --network none").returncode == 99:
            pytest.skip("mount name spaces are not allowed here")
        yield path
    finally:
        shutil.rmtree(path)


def run(base: Path, script: str) -> subprocess.CompletedProcess[str]:
    """A script with `ann` and `bob`, who are `tonfs` as these users, and `as UID COMMAND...`; nothing stays mounted."""
    whole = f"""
        findmnt -rnt fuse.tonfs -o TARGET | xargs -r umount -il
        cd {base}; export HOME={base} TONFS_VOLUME={base}/v; unset XDG_DATA_HOME XDG_RUNTIME_DIR
        mount --bind fuse /dev/fuse && mount --bind fuse.conf /etc/fuse.conf || exit 99
        as() {{ u=$1; shift; setpriv --reuid $u --regid $u --clear-groups --inh-caps +dac_read_search \\
                --ambient-caps +dac_read_search --bounding-set=+all -- "$@"; }}
        ann() {{ as {ANN} {" ".join(TONFS)} "$@"; }}
        bob() {{ as {BOB} {" ".join(TONFS)} "$@"; }}
        trap 'umount -il m 2>/dev/null; true' EXIT
        {script}
    """
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-uc", whole]
    return subprocess.run(words, capture_output=True, text=True, timeout=100, check=False, errors="replace")


def test_a_user_mounts_works_and_unmounts(base: Path) -> None:
    done = run(
        base,
        f"""
        ann mount m; echo "mount $?"; findmnt -no OPTIONS m
        as {ANN} sh -c 'echo text >m/f; cat m/f'; as {BOB} cat m/f || echo "not for bob"
        bob umount m; echo "bob $?"
        ann umount m; echo "umount $?"
        ann mount m -o ro; as {ANN} touch m/g; as {ANN} fusermount3 -u m; echo "fusermount3 $?"
        """,
    )
    lines = [line for line in done.stdout.splitlines() if line]
    assert lines[0] == "mount 0", done.stderr
    assert "nosuid,nodev" in lines[1]
    assert f"user_id={ANN}" in lines[1]
    assert lines[2:] == ["text", "not for bob", "bob 5", "umount 0", "fusermount3 0"]
    assert "is it another user's?" in done.stderr
    assert "Read-only file system" in done.stderr


def test_others_may_look_in_when_root_allows_it(base: Path) -> None:
    done = run(
        base,
        f"""
        ann mount m -o allow_other; echo "refused $?"
        echo user_allow_other >>/etc/fuse.conf
        ann mount m -o allow_other; echo "mount $?"
        as {ANN} sh -c 'chmod 755 m; echo text >m/f; chmod 644 m/f'; setpriv --reuid {BOB} --clear-groups cat m/f
        setpriv --reuid {BOB} --clear-groups sh -c 'echo x >m/f; cat m/.tonfs/status'
        ann umount m; chmod 600 /dev/fuse; ann mount m; echo "closed $?"
        """,
    )
    assert done.stdout.split() == ["refused", "5", "mount", "0", "text", "closed", "5"], done.stderr
    assert "into /etc/fuse.conf, or leave allow_other out" in done.stderr
    assert done.stderr.count("Permission denied") >= 2
    assert "chmod 666 /dev/fuse" in done.stderr
