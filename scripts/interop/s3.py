"""Stock S3 clients against the S3 door."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path

from .kit import JUDGES_DIR, TONFS, Judge, Missing, digest, free_port, run, sample

AWS = JUDGES_DIR / "aws" / "bin" / "aws"


def aws(base: Path) -> str:
    if not AWS.exists():
        raise Missing("aws cli (.judges/aws)")
    volume, port = base / "volume", free_port()
    run(TONFS, "--volume", str(volume), "init", "--network", "none")
    key = json.loads(run(TONFS, "--volume", str(volume), "s3", "key", "new", "--json"))
    env = {
        "AWS_ACCESS_KEY_ID": key["access_key"],
        "AWS_SECRET_ACCESS_KEY": key["secret_key"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    door = subprocess.Popen(
        [TONFS, "--volume", str(volume), "s3", "serve", "--listen", f"127.0.0.1:{port}"], stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 30
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if time.monotonic() > end:
                raise RuntimeError("the S3 door does not listen")
            time.sleep(0.1)
        tool = (str(AWS), "--endpoint-url", f"http://127.0.0.1:{port}")
        source = sample(base) / "s3shim"
        run(*tool, "s3", "mb", "s3://bucket", env=env)
        run(*tool, "s3", "cp", str(source), "s3://bucket/tree", "--recursive", "--only-show-errors", env=env)
        moved = run(*tool, "s3", "sync", str(source), "s3://bucket/tree", env=env)
        if moved.strip():
            raise RuntimeError(f"a sync after the copy still moves: {moved[:200]}")
        listed = run(*tool, "s3", "ls", "s3://bucket/tree/", "--recursive", env=env).split()
        run(*tool, "s3", "cp", "s3://bucket/tree", str(base / "back"), "--recursive", "--only-show-errors", env=env)
        if digest(base / "back") != digest(source):
            raise RuntimeError("what came back differs")
        run(*tool, "s3", "rm", "s3://bucket/tree", "--recursive", "--only-show-errors", env=env)
        run(*tool, "s3", "rb", "s3://bucket", env=env)
        return f"mb, cp, sync (empty), ls ({len(listed) // 4} keys), cp back, rm, rb"
    finally:
        door.terminate()
        door.wait(30)


JUDGES = (Judge("aws", aws),)
