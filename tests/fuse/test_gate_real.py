"""The gate in a real pyfuse3 session; fails when a release of pyfuse3 no longer looks `trio` up in its module."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SESSION = """
import os, subprocess, sys
import pyfuse3, trio
from tonfs.fuse.gate import Gate, install, remove

point = sys.argv[1]
ASK = "import os, sys\\nfor _ in range(300): os.statvfs(sys.argv[1])"


class Empty(pyfuse3.Operations):
    async def getattr(self, inode, ctx):
        entry = pyfuse3.EntryAttributes()
        entry.st_ino, entry.st_mode, entry.st_nlink = inode, 0o40755, 2
        return entry

    async def statfs(self, ctx):
        await trio.to_thread.run_sync(bool)  # another worker must read meanwhile
        out = pyfuse3.StatvfsData()
        out.f_bsize = out.f_frsize = 4096
        return out


async def ask():
    await trio.run_process([sys.executable, "-c", ASK, point])
    await trio.run_process(["umount", point])


async def main():
    gate = Gate()
    assert install(gate)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        with trio.fail_after(30):
            await pyfuse3.main(4, 4)
    remove(gate)
    print(gate.entered)


pyfuse3.init(Empty(), point, {"fsname=gate"})
trio.run(main)
pyfuse3.close(unmount=False)
"""


def test_pyfuse3_reads_through_the_gate(tmp_path: Path, root_and_fuse: None) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SESSION, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    subprocess.run(["umount", "-l", str(tmp_path)], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 300, "pyfuse3 does not ask our stand-in"
