"""`make bench`: every benchmark of this folder, one after the other. Ratios are what counts; machines are noisy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
RUNS = (
    (
        "files: the mount beside the file system below it",
        ["files.py", "--runs", "3", "--json", str(HERE / "out" / "files.json")],
    ),
    (
        "S3: the door beside nanio, rclone and versitygw, as far as they are here",
        ["s3.py", "--json", str(HERE / "out" / "s3.json")],
    ),
    (
        "two doors: the mount while the S3 door of the same volume is under load",
        ["two_doors.py", "--json", str(HERE / "out" / "doors.json")],
    ),
    (
        "network: RLDP2 between two processes, with and without the C helper, beside bare sockets",
        ["network_loopback.py", "--megabytes", "64", "--json", str(HERE / "out" / "network.json")],
    ),
    ("storage: a bag between two peer processes", ["storage_loopback.py", "--size", "64"]),
    ("storage: 1 to 8 peers, 1 to 100 bags", ["storage_loopback.py", "--size", "64", "--table"]),
    ("storage: memory of a peer that serves 1000 bags", ["storage_loopback.py", "--size", "16", "--bags", "1000"]),
    (
        "storage: beside tonutils-storage, over paths that lose, delay and shape",
        ["storage_daemon.py", "--json", str(HERE / "out" / "daemon.json")],
    ),
    ("bags: making one beside tonutils-storage", ["bag_creation.py", "--json", str(HERE / "out" / "bags.json")]),
)


def main() -> int:
    failed = 0
    for title, (script, *words) in RUNS:
        print(f"\n== {title}", flush=True)
        failed += subprocess.run([sys.executable, str(HERE / script), *words], check=False).returncode != 0
    return 1 if failed else 0


sys.exit(main())
