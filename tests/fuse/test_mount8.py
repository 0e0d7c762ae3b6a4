"""The real mount(8) and umount(8), with the helper in a private mount name space's /sbin."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tonfs.cli import helper

from .front import TONFS, tonfs

pytestmark = pytest.mark.root


class Machine:
    """Shell scripts in a mount name space of their own, whose /sbin has our helpers (and nothing else)."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.sbin = base / "sbin"
        self.sbin.mkdir()
        (base / "mnt").mkdir()
        helper.install(self.sbin)
        tonfs("--volume", str(base / "volume"), "init", "--network", "none")

    def run(self, script: str) -> str:
        """Output of a script, which ends in the end and never leaves a mount. `$V` the volume, `$D` the directory."""
        # The copies that the name space got of other mounts would keep their fronts from ending.
        whole = f"""
            findmnt -rnt fuse.tonfs -o TARGET | xargs -r umount -il
            mount --bind {self.sbin} $(readlink -f /sbin) || exit 99
            cd {self.base}; V={self.base}/volume; D={self.base}/mnt
            tonfs() {{ {helper.programs()}/tonfs "$@"; }}
            shown() {{ findmnt -no FSTYPE,OPTIONS $D; }}
            trap 'umount -il $D 2>/dev/null; true' EXIT
            {script}
        """
        words = ["unshare", "--mount", "--propagation", "private", "sh", "-uc", whole]
        done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode != 99, done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def machine(tmp_path: Path, root_and_fuse: None) -> Machine:
    probe = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip("mount name spaces are not allowed here")
    return Machine(tmp_path)


def test_mount_remount_and_umount_as_any_file_system(machine: Machine) -> None:
    said = machine.run("""
        mount -t tonfs $V $D -o nosuid,umask=077; echo "mount $?"
        echo text > $D/file; stat -c %a $D/file; shown
        mount -o remount,ro $D; echo "ro $?"; touch $D/other || shown
        mount -o remount,rw,umask=077 $D; echo "rw $?"; touch $D/other && echo written
        mount -o remount,umask=027 $D; echo "umask $?"
        tonfs umount $D; echo "umount $?"; shown || echo gone
        flock -n volume/run/front.lock echo "the front is gone"
    """)
    lines = [line for line in said.splitlines() if line]
    assert lines[:2] == ["mount 0", "600"]
    assert "fuse.tonfs rw,nosuid" in lines[2]
    assert "nodev" not in lines[2], "devices work, as on any file system that mount(8) mounts"
    assert lines[3] == "ro 0"
    assert "fuse.tonfs ro," in lines[4]
    assert lines[5:11] == ["rw 0", "written", "umask 32", "umount 0", "gone", "the front is gone"]
    assert "umask cannot change while the volume is mounted" in said


def test_fstab_lines_and_both_types_work_without_a_path(machine: Machine) -> None:
    said = machine.run("""
        echo "$V $D tonfs _netdev,nofail,noauto,x-systemd.automount,x-systemd.mount-timeout=9,ro 0 0" > fstab
        env -i /usr/bin/mount -T fstab $D; echo "fstab $?"; shown; env -i /usr/bin/umount $D
        mount -t fuse.tonfs ton://$V $D; echo "fuse.tonfs $?"; shown
    """)
    lines = said.splitlines()
    assert lines[0] == "fstab 0"
    assert "fuse.tonfs ro," in lines[1]
    assert lines[2] == "fuse.tonfs 0"
    assert "fuse.tonfs rw," in lines[3]


def test_mount_all_skips_what_is_mounted_and_what_may_fail(machine: Machine) -> None:
    said = machine.run("""
        echo "$V $D tonfs _netdev 0 0" > fstab
        mount -T fstab -a; echo "first $?"; mount -T fstab -a; echo "second $?"; mount -T fstab $D; echo "asked for $?"
        kill -9 $(cat volume/run/front.lock); while ls $D >/dev/null 2>&1; do sleep 0.02; done
        mount -T fstab -a; echo "dead $?"; umount $D
        echo "$V.none $D tonfs _netdev,nofail 0 0" > fstab; mount -T fstab -a; echo "nofail $?"
        echo "$V.none $D tonfs _netdev 0 0" > fstab; mount -T fstab -a; echo "fails $?"
    """)
    codes = [line for line in said.splitlines() if line and line.split()[-1].isdigit()]
    assert codes == ["first 0", "second 0", "asked for 32", "dead 0", "nofail 0", "fails 32"]
    assert f"is mounted at {machine.base}/mnt" in said


def test_who_has_the_volume_and_what_was_meant_is_said(machine: Machine) -> None:
    said = machine.run("""
        unshare --mount --propagation private mount -t tonfs $V $D
        mount -t tonfs $V $D; echo "elsewhere $?"; kill $(cat volume/run/front.lock)
        mount -t tonfs $V $D; echo "then $?"; mkdir $D/sub
        tonfs umount $V; tonfs umount $D/sub; tonfs umount /proc; exec 9>$D/open; mount -o remount,ro $D; exec 9>&-
        mount -i -t tmpfs tmpfs $D; tonfs umount $D; umount $D; mount -t tonfs $V ""; echo "empty $?"
    """)
    assert "another mount name space" in said
    assert "nsenter -t" in said
    assert "elsewhere 32" in said
    assert "then 0" in said
    assert f"That is a volume; it is mounted at {machine.base}/mnt." in said
    assert f"It lies in the mount at {machine.base}/mnt." in said
    assert "'findmnt -t fuse.tonfs' lists" in said
    assert "Something else is mounted over it" in said
    assert "mnt is in use: files are open for writing. [TF0008]" in said
    assert "empty 1" in said


def test_what_goes_wrong_has_mounts_exit_code_and_the_real_reason(machine: Machine) -> None:
    said = machine.run("""
        mount -t tonfs $V $D -o cache_sise=3; echo "option $?"
        mount -t tonfs $V/none $D; echo "volume $?"
        mount -f -t tonfs $V/none $D; echo "fake $?"
        touch file; mount -i -t tmpfs tmpfs $D; mount -t tonfs $V file; echo "directory $?"
        mount -s -t tonfs $V $D -o nosuch; echo "sloppy $?"
        mount -t tonfs $V $D; echo "twice $?"
        mount -t tonfs $V $D/../none; echo "missing $?"; ls -d $D/../none
        mount -s -o remount,ro,nosuch $D; echo "remount $?"; shown
    """)
    codes = [line for line in said.splitlines() if line and line.split()[-1].isdigit()]
    assert codes == [
        "option 1",
        "volume 32",
        "fake 0",
        "directory 32",
        "sloppy 0",
        "twice 32",
        "missing 32",
        "remount 0",
    ]
    assert "Did you mean 'cache_size'?" in said
    assert "There is no volume at" in said
    assert "volume is mounted at" in said
    assert "none does not exist" in said
    assert "No such file" in said, "ls: nobody made it"
    assert "fuse.tonfs ro," in said


def test_a_mount_goes_to_the_name_space_that_was_asked_for(machine: Machine) -> None:
    said = machine.run("""
        unshare --mount --propagation private sleep 100 & sleep 0.5
        mount -N $! -t tonfs $V $D; echo "mount $?"; shown || echo "not here"
        nsenter -t $! -m findmnt -no FSTYPE $D; nsenter -t $! -m umount $D; kill $!
        mount.tonfs $V $D -N /no/such; echo "none $?"
    """)
    lines = said.splitlines()
    assert lines[:3] == ["mount 0", "not here", "fuse.tonfs"]
    assert "none 32" in lines
    assert "cannot be entered" in said


def test_a_dead_mount_is_cleaned_up_by_mount_and_by_umount(machine: Machine) -> None:
    said = machine.run("""
        die() { kill -9 $(cat volume/run/front.lock); while ls $D >/dev/null 2>&1; do sleep 0.02; done; }
        mount -t tonfs $V $D; echo text > $D/file; sync -f $D/file; sleep 1; die
        mount -t tonfs $V $D; echo "mount $?"; cat $D/file; findmnt -no TARGET $D | wc -l
        die; mount -o remount,ro $D; echo "remount $?"; umount $D; echo "umount $?"; shown || echo gone
    """)
    assert "is dead" in said
    assert [line for line in said.splitlines() if line][:3] == ["mount 0", "text", "1"]
    assert "remount 32" in said
    assert said.split("\n")[-3:-1] == ["umount 0", "gone"] or "umount 0\ngone" in said


def test_systemd_is_told_when_the_mount_answers_and_when_it_ends(machine: Machine) -> None:
    base = machine.base
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(base / "notify"))
        systemd.settimeout(60.0)
        words = [*TONFS, "--volume", str(base / "volume"), "mount", str(base / "mnt"), "--foreground"]
        process = subprocess.Popen(
            words, env={**os.environ, "NOTIFY_SOCKET": str(base / "notify")}, stderr=subprocess.DEVNULL
        )
        try:
            assert systemd.recv(4096).startswith(b"READY=1\n")
            (base / "mnt" / "file").write_text("text", encoding="ascii")
            process.send_signal(signal.SIGTERM)
            assert systemd.recv(4096) == b"STOPPING=1"
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
            process.wait()
            subprocess.run(["umount", "-il", str(base / "mnt")], capture_output=True, check=False)
    assert not (base / "mnt" / "file").exists()
    assert sys.executable == TONFS[0]
