"""The rehearsal: the main job from end to end without a person. Exits 0 only if every step held.

Everything runs on loopback in a temporary directory: a devnet with eight providers (five to hold, three to break), a
volume, a mount, S3, an agent. One line a step says what was measured; the last line counts.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TONFS = str(ROOT / ".venv" / "bin" / "tonfs")
AWS = str(ROOT / ".judges" / "aws" / "bin" / "aws")
STOCK = str(ROOT / ".judges" / "tonutils" / "bin" / "python")
REPLICAS = 5
PROVIDERS = 8
LOSS = 0.02

sys.path.insert(0, str(ROOT))
from tonfs.control import call_sync  # noqa: E402  (the package of this checkout)


class StepFailed(Exception):
    """A step did not hold; the message says what was seen."""


def hold(condition: object, what: str) -> None:
    if not condition:
        raise StepFailed(what)


def run(*argv: str, timeout: float = 900.0, env: dict[str, str] | None = None, ok: bool = True) -> str:
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})}, check=False
    )
    if ok and done.returncode != 0:
        raise StepFailed(f"'{' '.join(argv[:6])}' ended with {done.returncode}: {(done.stderr or done.stdout)[-600:]}")
    return done.stdout


def until(what: str, timeout: float, look: Callable[[], Any]) -> Any:
    """Call `look` until it returns something true. Raises StepFailed with the last value seen."""
    end = time.monotonic() + timeout
    value = look()
    while not value:
        if time.monotonic() > end:
            raise StepFailed(f"{what}: not within {timeout:g} s")
        time.sleep(0.5)
        value = look()
    return value


def tree_digest(root: Path) -> dict[str, str]:
    """Relative path -> sha256 of a file, `link:` target of a symlink, `dir` of a directory."""
    out: dict[str, str] = {}
    for folder, names, files in os.walk(root):
        for name in names + files:
            path = Path(folder) / name
            key = str(path.relative_to(root))
            if path.is_symlink():
                out[key] = "link:" + os.readlink(path)
            elif path.is_dir():
                out[key] = "dir"
            else:
                with path.open("rb") as stream:
                    out[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return out


def picture(width: int = 640, height: int = 480) -> bytes:
    """A real PNG with noise in it, so that it does not shrink to nothing."""
    rng = random.Random(7)
    rows = b"".join(b"\0" + rng.randbytes(3 * width) for _ in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Rehearsal:
    def __init__(self, base: Path, only: set[int]) -> None:
        self.base = base
        self.only = only
        self.volume = base / "volume"
        self.mount = base / "tonfs"
        self.source = base / "source"
        self.devnet = self.volume / "devnet"
        self.s3 = "127.0.0.1:8080" if not only or 3 in only else ""
        self.held = 0
        self.kept = b""
        """An object that stays, to be evicted and read back through S3."""
        self.broken: list[str] = []

    # Talking to the processes.

    def tonfs(self, *words: str, timeout: float = 900.0, env: dict[str, str] | None = None, ok: bool = True) -> str:
        return run(TONFS, "--volume", str(self.volume), *words, timeout=timeout, env=env, ok=ok)

    def json(self, *words: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.tonfs(*words, "--json"))
        return value

    def status(self) -> dict[str, Any]:
        return self.json("status")

    def ask(self, socket: Path, method: str, **params: Any) -> dict[str, Any]:
        return call_sync(socket, method, params, who=socket.name, timeout=60.0)

    def pid(self, name: str) -> int:
        return int(self.ask(self.volume / "run" / f"{name}.sock", "ping")["pid"])

    def aws(self, *words: str, ok: bool = True) -> str:
        argv = [AWS, *words, "--endpoint-url", f"http://localhost:{self.s3.rpartition(':')[2]}"]
        return run(*argv, env=self.aws_env, ok=ok)

    def up(self, **env: str) -> None:
        self.tonfs("up", str(self.mount), "--detach", "--s3", self.s3, timeout=300.0, env=env)

    def good(self, status: dict[str, Any]) -> tuple[int, int]:
        packs = status["packs"]
        active = [[p for p in pack["placements"] if p["state"] == "active"] for pack in packs]
        return sum(min(len(a), REPLICAS) for a in active), len(packs) * REPLICAS

    @contextmanager
    def everything(self) -> Iterator[None]:
        """Volume, devnet, mount, S3, agent; all down at the end, whatever happened."""
        try:
            self.tonfs("init", "--network", "devnet", "--replicas", str(REPLICAS))
            self.tonfs("devnet", "up", "--state", str(self.devnet), "--providers", str(PROVIDERS), "--detach")
            self.up()
            key = (
                self.json("s3", "key", "new")
                if not self.only or 3 in self.only
                else {"access_key": "", "secret_key": ""}
            )
            self.aws_env = {
                "AWS_ACCESS_KEY_ID": key["access_key"],
                "AWS_SECRET_ACCESS_KEY": key["secret_key"],
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_EC2_METADATA_DISABLED": "true",
            }
            yield
        finally:
            self.tonfs("down", ok=False, timeout=300.0)
            self.tonfs("devnet", "down", "--state", str(self.devnet), ok=False, timeout=120.0)

    # Steps.

    def step(self, number: int, title: str, body: Callable[[], str]) -> None:
        if self.only and number not in self.only:
            return
        started = time.monotonic()
        try:
            measured = body()
            self.held += 1
            word = "held"
        except (StepFailed, subprocess.TimeoutExpired, OSError, KeyError, ValueError) as exc:
            measured = f"{type(exc).__name__}: {exc}"
            word = "FAILED"
        except Exception as exc:  # a step that breaks in a new way is a step that failed
            measured = f"{type(exc).__name__}: {exc}"
            word = "FAILED"
        print(f"step {number} {word} ({time.monotonic() - started:.1f} s): {title}: {measured}", flush=True)

    def copy_tree(self) -> str:
        library = Path(sysconfig.get_path("stdlib"))
        skip = shutil.ignore_patterns("__pycache__", "site-packages", "dist-packages")
        shutil.copytree(library, self.source, symlinks=True, ignore=skip)
        links = sum(p.is_symlink() for p in self.source.rglob("*"))
        if not links:
            (self.source / "python-link").symlink_to("os.py")
        run("cp", "-a", str(self.source), str(self.mount / "lib"))
        self.digest = tree_digest(self.source)
        hold(tree_digest(self.mount / "lib") == self.digest, "the copy differs from its source")
        for sample in ("os.py", "json/__init__.py"):
            a, b = (self.source / sample).stat(), (self.mount / "lib" / sample).stat()
            hold((a.st_mode, a.st_mtime_ns, a.st_size) == (b.st_mode, b.st_mtime_ns, b.st_size), f"{sample}: stat")
        files = sum(v not in ("dir",) and not v.startswith("link:") for v in self.digest.values())
        links = sum(v.startswith("link:") for v in self.digest.values())
        size = sum(p.stat().st_size for p in self.source.rglob("*") if p.is_file() and not p.is_symlink())
        self.size = size
        return f"{files} files, {links} symlinks, {size / 1e6:.1f} MB, equal by hash"

    def replicate(self) -> str:
        self.tonfs("wait", "--replicas", str(REPLICAS), "--timeout", "20m", timeout=1300.0)
        status = self.status()
        hold(status["packs"], "there is no pack")
        for pack in status["packs"]:
            active = [p for p in pack["placements"] if p["state"] == "active"]
            hold(len(active) >= REPLICAS, f"pack {pack['bag_id'][:12]} has {len(active)} replicas")
            for placement in active:
                audit = placement["last_audit"]
                hold(audit and audit["verdict"] == "healthy", f"an active placement has verdict {audit}")
                hold(audit["bytes"] > 0 and audit["pieces"] > 0, "an audit fetched no data")
        audited = sum(p["last_audit"]["bytes"] for pack in status["packs"] for p in pack["placements"])
        good, wanted = self.good(status)
        return f"{len(status['packs'])} packs, {good} of {wanted} replicas, audits fetched {audited / 1e6:.1f} MB"

    def two_doors(self) -> str:
        image = self.base / "image.jpg"
        back = self.base / "back.jpg"
        image.write_bytes(picture())
        self.aws("s3api", "create-bucket", "--bucket", "my-files")
        put = ("--bucket", "my-files", "--key", "image.jpg")
        self.aws("s3api", "put-object", *put, "--body", str(image))
        hold((self.mount / "my-files/image.jpg").read_bytes() == image.read_bytes(), "mount and picture differ")
        head = json.loads(self.aws("s3api", "head-object", *put))
        hold(head["ContentLength"] == image.stat().st_size, f"head-object says {head['ContentLength']} bytes")
        self.aws("s3api", "get-object", *put, str(back))
        hold(back.read_bytes() == image.read_bytes(), "get-object brought other bytes")
        note = self.mount / "my-files" / "note.txt"
        note.write_text("written through the mount\n", encoding="utf-8")
        self.aws("s3api", "get-object", "--bucket", "my-files", "--key", "note.txt", str(back))
        hold(back.read_text(encoding="utf-8") == "written through the mount\n", "the object is not the file")
        (self.mount / "my-files/image.jpg").unlink()
        gone = run(AWS, "s3api", "head-object", *put, "--endpoint-url", f"http://{self.s3}", env=self.aws_env, ok=False)
        hold(not gone.strip(), "the object outlived its file")
        self.aws("s3api", "delete-object", "--bucket", "my-files", "--key", "note.txt")
        hold(not note.exists(), "the file outlived its object")
        self.kept = random.Random(3).randbytes(1_500_000)
        image.write_bytes(self.kept)
        kept = ("--bucket", "my-files", "--key", "kept.bin", "--body", str(image), "--metadata", "of=the rehearsal")
        self.aws("s3api", "put-object", *kept)
        return f"{image.stat().st_size} bytes equal through both doors, both deletions seen by the other"

    def repair(self) -> str:
        devnet = self.json("devnet", "status", "--state", str(self.devnet))
        loads: dict[str, int] = {}
        for pack in self.status()["packs"]:
            for placement in pack["placements"]:
                if placement["state"] == "active":
                    loads[placement["provider"]] = loads.get(placement["provider"], 0) + 1
        known = {p["key"] for p in devnet["providers"]}
        victims = [k for k in sorted(loads, key=lambda k: -loads[k]) if k in known][:3]
        hold(len(victims) == 3, f"only {len(victims)} providers hold anything")
        faults = dict(zip(victims, ("silent", "hash-only", "wrong-bytes"), strict=True))
        for key, fault in faults.items():
            self.tonfs("devnet", "fault", key, fault, "--state", str(self.devnet))
        self.broken = victims
        found: dict[str, str] = {}

        def repaired() -> bool:
            status = self.status()
            for pack in status["packs"]:
                for placement in pack["placements"]:
                    key = placement["provider"]
                    if placement["state"] in ("failed", "evicting", "gone") and key in faults:
                        found[key] = placement["reason"]
            clean = all(
                p["provider"] not in faults or p["state"] in ("evicting", "gone")
                for pack in status["packs"]
                for p in pack["placements"]
            )
            good, wanted = self.good(status)
            return clean and good == wanted and len(found) == 3

        until("three faults found and replaced", 600.0, repaired)
        status = self.status()
        innocent = [p["key"] for p in status["providers"] if p["failures"] and p["key"] not in faults]
        hold(not innocent, f"untouched providers were marked failed: {innocent}")
        for pack in status["packs"]:
            contract = next(p["contract"] for p in pack["placements"] if p["state"] == "active")
            listed = {p["key"] for p in self.json("contract", "show", contract)["providers"]}
            hold(not listed & set(faults), f"contract {contract} still pays a failed provider")
        for key in victims:  # mended, as an operator would; they may be hired again after a while
            self.tonfs("devnet", "fault", key, "none", "--state", str(self.devnet))
        good, wanted = self.good(status)
        words = ", ".join(f"{faults[k]} ({found[k]})" for k in victims)
        return f"found and replaced: {words}; {good} of {wanted} replicas again; no other provider was marked"

    def crash(self) -> str:
        folder = self.mount / "crash"
        folder.mkdir()
        acknowledged: dict[str, bytes] = {}
        rng = random.Random(11)
        kills = 0

        def write(name: str) -> None:
            data = rng.randbytes(rng.randrange(1, 200_000))
            try:
                fd = os.open(folder / name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
                try:
                    os.write(fd, data)
                    os.fsync(fd)
                finally:
                    os.close(fd)
            except OSError:
                return  # not acknowledged, so nothing was promised
            acknowledged[name] = data

        for round_ in range(4):
            for n in range(25):
                write(f"{round_}-{n}")
            self.tonfs("wait", str(folder), "--timeout", "1s", ok=False)  # starts packing and hiring right now
            time.sleep(rng.uniform(0.2, 3.0))
            for name in ("front", "agent") if round_ % 2 else ("agent", "front"):
                os.kill(self.pid(name), signal.SIGKILL)
                kills += 1
            until("front and agent are back", 90.0, self._alive)
        for name, data in acknowledged.items():
            hold((folder / name).read_bytes() == data, f"{name} was acknowledged and lost")
        hold(tree_digest(self.mount / "lib") == self.digest, "the tree changed")
        self.tonfs("wait", "--replicas", str(REPLICAS), "--timeout", "15m", timeout=1000.0)
        payments = self._payments()
        return (
            f"{kills} kills, {len(acknowledged)} acknowledged files intact, "
            f"{payments} payments to contracts, none twice"
        )

    def _alive(self) -> bool:
        try:
            self.pid("front"), self.pid("agent")
            return os.path.ismount(self.mount) and (self.mount / "crash").is_dir()
        except Exception:
            return False

    def _payments(self) -> int:
        """Every payment of ours to a contract carries its intent's number; a number seen twice was paid twice."""
        ledger = self.json("ledger")
        seen: set[tuple[str, int]] = set()
        for row in ledger["contracts"]:
            history = self.ask(self.devnet / "control.sock", "transactions", address=row["contract"])
            for transaction in history["transactions"]:
                if transaction["source"] != ledger["wallet"] or transaction["query_id"] is None:
                    continue
                mark = (row["contract"], transaction["query_id"], transaction["op"])
                hold(mark not in seen, f"intent {mark[1]} was paid twice to {mark[0]}")
                seen.add(mark)
        hold(ledger["total"]["adds_up"], "the ledger does not add up with the wallet")
        return len(seen)

    def read_back(self) -> str:
        self.tonfs("down", timeout=300.0)
        self.up(TONFS_PEER__PACKET_LOSS=str(LOSS))
        self.tonfs("wait", "--replicas", str(REPLICAS), "--timeout", "10m", timeout=700.0)
        before = tree_digest(self.mount)
        evicted = self.json("evict", str(self.mount))
        hold(not evicted["kept"], f"not evicted: {evicted['kept'][:3]}")
        if os.geteuid() == 0:
            Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")
        local = self.status()["bytes"]["local"]
        hold(local < self.size / 50, f"{local} bytes are still local")
        objects = self._read_object_back() if self.kept else ""
        started = time.monotonic()
        back = tree_digest(self.mount)
        seconds = time.monotonic() - started
        different = [k for k in before if back.get(k) != before[k]]
        hold(not different and len(back) == len(before), f"{len(different)} entries differ: {different[:3]}")
        hold(tree_digest(self.mount / "lib") == self.digest, "the tree differs from its source")
        net = self.ask(self.volume / "run" / "peer.sock", "status")["traffic"]
        hold(net["dropped"] > 0, "no packet was dropped")
        return (
            f"{evicted['files']} files ({evicted['bytes'] / 1e6:.1f} MB) evicted, read back in {seconds:.1f} s "
            f"({evicted['bytes'] / 1e6 / seconds:.1f} MB/s) with {net['dropped']} packets dropped, equal by hash"
            f"{objects}"
        )

    def _read_object_back(self) -> str:
        target = self.base / "object"
        put = ("--bucket", "my-files", "--key", "kept.bin")
        state = os.getxattr(self.mount / "my-files" / "kept.bin", "user.tonfs.state")
        hold(state == b"proven", f"the object is {state!r}")
        self.aws("s3api", "get-object", *put, "--range", "bytes=700000-700099", str(target))
        hold(target.read_bytes() == self.kept[700_000:700_100], "a range of the evicted object differs")
        answer = json.loads(self.aws("s3api", "get-object", *put, str(target)))
        hold(target.read_bytes() == self.kept, "the evicted object came back with other bytes")
        etag = hashlib.md5(self.kept, usedforsecurity=False).hexdigest()
        hold(answer["ETag"] == f'"{etag}"', f"its ETag is {answer['ETag']}")
        hold(answer["Metadata"] == {"of": "the rehearsal"}, f"its metadata is {answer['Metadata']}")
        hold(answer["ReplicationStatus"] == "COMPLETED", f"its replication is {answer.get('ReplicationStatus')}")
        return "; an evicted object through S3, too"

    def stock_client(self) -> str:
        devnet = self.json("devnet", "status", "--state", str(self.devnet))
        wallet = self.json("wallet", "show")
        status = self.status()
        contract = next(p["contract"] for p in status["packs"][0]["placements"] if p["state"] == "active")

        def agree() -> str | None:
            shown = self.json("contract", "show", contract)
            seen = json.loads(
                run(
                    STOCK,
                    str(ROOT / "scripts" / "stock_client.py"),
                    devnet["global_config"],
                    wallet["address"],
                    contract,
                )
            )
            money = self.json("wallet", "show")["balance"]
            again = self.json("contract", "show", contract)
            if shown != again:
                return None  # a proof arrived between the two looks: look again
            same = (
                seen["contract_balance"] == shown["balance"]
                and seen["contract_state"] == shown["status"]
                and seen["contract_code_hash"] == shown["code_hash"]
                and seen["contract_data_hash"] == shown["data_hash"]
                and seen["wallet_balance"] == money
            )
            return json.dumps(seen) if same else None

        seen = json.loads(until("tonutils agrees with 'tonfs contract show'", 60.0, agree))
        return (
            f"tonutils reads wallet {seen['wallet_balance']} n and contract {seen['contract_balance']} n, "
            f"state {seen['contract_state']}, code {seen['contract_code_hash'][:12]}; tonfs says the same"
        )

    def wind_down(self) -> str:
        for name in ("lib", "crash", "my-files"):
            shutil.rmtree(self.mount / name)
        until("contracts are closed", 300.0, lambda: all(
            row["state"] == "closed" for row in self.json("ledger")["contracts"]
        ))  # fmt: skip
        ledger = self.json("ledger")
        total = ledger["total"]
        hold(total["adds_up"], f"the ledger does not add up: {total}")
        hold(total["returned"] > 0, "no coin came back")
        coins = self.json("devnet", "status", "--state", str(self.devnet))["coins"]
        hold(coins["ok"], f"the chain's coins do not add up: {coins}")
        hold(coins["issued"] == coins["held"] + coins["fees"] + coins["in_flight"], f"coins: {coins}")
        hold(not self.status()["packs"], "packs are left")
        return (
            f"{len(ledger['contracts'])} contracts closed; funded {total['funded']} n, returned {total['returned']} n, "
            f"providers earned {total['rewards']} n, fees {total['contract_fees'] + total['wallet_fees']} n, left in "
            f"contracts {total['left']} n; issued {coins['issued']} n = held + fees + in flight, to the nanoTON"
        )

    def nothing_left(self) -> None:
        """Not a step of its own, but a rehearsal that leaves things behind has not held."""
        hold(not os.path.ismount(self.mount), "the mount is still there")
        listed = run("ps", "-eo", "pid,args", ok=False) if shutil.which("ps") else ""
        left = [line for line in listed.splitlines() if str(self.base) in line and "demo_check" not in line]
        hold(not left, f"processes are left: {left[:3]}")


def main() -> int:
    base = Path(tempfile.mkdtemp(prefix="tonfs-check-", dir="/var/tmp"))
    only = {int(word) for word in sys.argv[1:]}  # while working on tonfs: some steps alone; never counts as held
    check = Rehearsal(base, only)
    print(f"rehearsal in {base}, {PROVIDERS} providers, {REPLICAS} replicas", flush=True)
    started = time.monotonic()
    try:
        with check.everything():
            check.step(1, "a real tree copied into the mount", check.copy_tree)
            check.step(2, "every pack at five audited providers", check.replicate)
            check.step(3, "one namespace, two doors", check.two_doors)
            check.step(4, "silent, hash-only and wrong-bytes providers", check.repair)
            check.step(5, "kill -9 of front and agent", check.crash)
            check.step(6, f"read back from providers at {LOSS:.0%} packet loss", check.read_back)
            check.step(8, "a stock TON client agrees", check.stock_client)
            check.step(7, "deletion, money back, receipt", check.wind_down)
        check.nothing_left()
    except StepFailed as exc:
        print(f"rehearsal broke off: {exc}", flush=True)
        check.held = min(check.held, 7)
    seconds = time.monotonic() - started
    if check.held == 8:
        shutil.rmtree(base, ignore_errors=True)
    else:
        print(f"state and logs are kept in {base}", flush=True)
        for path in sorted((check.volume / "log").glob("*.log")):
            print(f"--- {path.name}\n{path.read_text(encoding='utf-8', errors='replace')[-2000:]}", flush=True)
    print(f"{seconds:.0f} s", flush=True)
    print(f"demo-check: {check.held} of 8 steps held", flush=True)
    return 0 if check.held == 8 else 1


sys.exit(main())
