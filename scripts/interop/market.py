"""The market with a stranger in it: an unmodified Go provider beside four of ours, hired, paid, audited, let go."""

from __future__ import annotations

import base64
import json
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

from tonfs.bridge import AsyncioThread
from tonfs.chain import Message, Wallet, comment
from tonfs.chain.address import friendly
from tonfs.chain.lite import LiteChain
from tonfs.chain.wallet import Version
from tonfs.control import call_sync
from tonfs.ids import NANO, ProviderKey
from tonfs.provider.register import FEE, REGISTRY, announcement
from tonfs.provider.sender import Sender

from .bags import hold
from .go_daemon import PROVIDER, Daemon, Process, free_udp_port, go_key, need_go, until
from .kit import DEADLINE, TONFS, Judge, Missing, free_port, run

OURS = 4
SPAN = 20
"""Seconds, the Go provider's least: it looks at its contracts when a span is over, so the test need not wait long."""
REWARD = 0xA91BAF56


class GoProvider(Process):
    """tonutils-storage-provider; bags go to the daemon beside it."""

    def __init__(self, base: Path, config: str, daemon: Daemon) -> None:
        folder = base / "go-provider"
        self.bags = folder / "provider"
        words = ["-config", str(folder / "config.json"), "-db", str(folder / "db"), "-network-config", config]
        super().__init__("the Go provider", folder, [str(PROVIDER), *words, "-verbosity", "1"])
        secret = go_key()
        seed = base64.b64decode(secret)[:32]
        self.key = base64.b64decode(secret)[32:].hex()
        self.wallet = Wallet.from_seed(seed, Version.V3R2)
        settings = {
            "ADNLKey": go_key(),
            "ProviderKey": secret,
            "BagsDirForStorage": str(self.bags),
            "ListenAddr": f"127.0.0.1:{free_udp_port()}",
            "ExternalIP": "127.0.0.1",
            "MinRatePerMBDay": "0.00001",
            "MinSpan": SPAN,
            "MaxSpan": 172800,
            "MaxBagSizeBytes": 4 << 30,
            "MaxMinutesNoDownloadProgress": 30,
            "Storages": [
                {
                    "BaseURL": f"http://127.0.0.1:{daemon.port}",
                    "Login": "",
                    "Password": "",
                    "SpaceToProvideMegabytes": 1024,
                }
            ],
            "CRON": {"Enabled": False, "MinReward": "0.005"},
        }
        (folder / "config.json").write_text(json.dumps(settings), encoding="ascii")

    def files(self) -> list[Path]:
        return [path for path in self.bags.rglob("*") if path.is_file()] if self.bags.exists() else []


def register(provider: GoProvider, config: str) -> None:
    """What its operator does once: a transfer with a comment to the well-known address (reference contracts 7)."""

    async def send() -> None:
        async with AsyncioThread() as bridge, LiteChain(Path(config), bridge) as chain:
            body = comment(announcement(ProviderKey(bytes.fromhex(provider.key))))
            hold(
                await Sender(chain, provider.wallet).deliver([Message(REGISTRY, FEE, body, bounce=False)]),
                "the registration was not carried out",
            )

    trio.run(send)


class Volume:
    """A volume on its own devnet, with mount and agent."""

    def __init__(self, base: Path) -> None:
        self.path = base / "volume"
        self.mount = base / "mount"
        self.devnet = self.path / "devnet"
        self.env = {"TONFS_POLICY__REPLICA__SPAN": str(SPAN), "TONFS_POLICY__AUDIT__INTERVAL": "10"}

    def tonfs(self, *words: str) -> str:
        return run(TONFS, "--volume", str(self.path), *words, env=self.env)

    def json(self, *words: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.tonfs(*words, "--json"))
        return value

    @contextmanager
    def network(self) -> Iterator[dict[str, Any]]:
        self.tonfs("init", "--network", "devnet", "--replicas", str(OURS + 1))
        state = ("--state", str(self.devnet))
        self.tonfs("devnet", "up", *state, "--providers", str(OURS), "--detach")
        try:
            yield self.json("devnet", "status", *state)
        finally:
            self.tonfs("devnet", "down", *state)

    @contextmanager
    def up(self) -> Iterator[None]:
        self.tonfs("up", str(self.mount), "--detach", "--s3", f"127.0.0.1:{free_port()}")
        try:
            yield
        finally:
            subprocess.run(
                [TONFS, "--volume", str(self.path), "down"], check=False, capture_output=True, timeout=DEADLINE
            )

    def placements(self, provider: str) -> list[dict[str, Any]]:
        return [
            placement
            for pack in self.json("status")["packs"]
            for placement in pack["placements"]
            if placement["provider"] == provider
        ]


def market(base: Path) -> str:
    need_go()
    if os.geteuid() or not Path("/dev/fuse").exists():
        raise Missing("/dev/fuse with the rights to mount")
    volume = Volume(base)
    with volume.network() as net:
        config = net["global_config"]
        daemon = Daemon(base, "daemon", config)
        with daemon.running():
            provider = GoProvider(base, config, daemon)
            address = friendly(provider.wallet.address, bounceable=False)
            volume.tonfs("devnet", "faucet", address, "3", "--state", str(volume.devnet))
            register(provider, config)
            provider.launch()
            try:
                return _life(volume, provider)
            finally:
                provider.end()


def _life(volume: Volume, provider: GoProvider) -> str:
    data = random.Random(1).randbytes(3_000_000)
    with volume.up():
        (volume.mount / "file").write_bytes(data)

        def active() -> bool:
            provider.check()
            rows = volume.placements(provider.key)
            return bool(rows) and rows[0]["state"] == "active"

        until("the Go provider is hired and active", active, 240)
        (row,) = volume.placements(provider.key)
        hold(row["last_proof"], "an active placement without a proof")
        hold(provider.files(), "it downloaded nothing")

        def healthy() -> dict[str, Any] | None:
            audit = volume.placements(provider.key)[0]["last_audit"]
            return audit if audit and audit["verdict"] == "healthy" and audit["bytes"] > 0 else None

        audit = until("an audit with data finds it healthy", healthy, 90)
        others = {p["provider"] for pack in volume.json("status")["packs"] for p in pack["placements"]}
        hold(len(others) == OURS + 1, f"{len(others)} providers hold the pack")
        rewards = until("it is paid", lambda: _rewards(volume, provider), 60)
        contract = volume.json("status")["packs"][0]["placements"][0]["contract"]
        (volume.mount / "file").unlink()
        until("the contract lets it go", lambda: _let_go(volume, contract, provider), 120)
        until("it deleted the files", lambda: provider.check() or not provider.files(), 120)
    return (
        f"hired next to {OURS} of ours, downloaded from us, proved, paid {len(rewards)}x ({sum(rewards) / NANO:.3f} "
        f"TON), healthy by {audit['bytes']} bytes of {audit['pieces']} pieces, removed, files deleted"
    )


def _rewards(volume: Volume, provider: GoProvider) -> list[int]:
    """Values of the messages by which contracts paid it."""
    history = call_sync(
        volume.devnet / "control.sock", "transactions", {"address": provider.wallet.address}, who="devnet"
    )
    return [int(row["value"]) for row in history["transactions"] if row["op"] == REWARD]


def _let_go(volume: Volume, contract: str, provider: GoProvider) -> bool:
    return provider.key not in {one["key"] for one in volume.json("contract", "show", contract)["providers"]}


JUDGES = (Judge("go provider", market),)
