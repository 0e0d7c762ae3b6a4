"""Foreign software of TON against our network roles and the local network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from .kit import JUDGES_DIR, ROOT, TONFS, Judge, Missing, run

WORLD = ROOT / "tests" / "model" / "test_network_world.py"
STOCK = JUDGES_DIR / "tonutils" / "bin" / "python"


def tonutils(base: Path) -> str:
    if not STOCK.exists():
        raise Missing("tonutils (.judges/tonutils)")
    state = base / "devnet"
    run(TONFS, "devnet", "up", "--state", str(state), "--providers", "0", "--detach")
    try:
        address = "0:" + "ab" * 32
        run(TONFS, "devnet", "faucet", address, "5", "--state", str(state))
        status = json.loads(run(TONFS, "devnet", "status", "--state", str(state), "--json"))
        script = str(ROOT / "scripts" / "stock_client.py")
        seen = json.loads(run(str(STOCK), script, status["global_config"], address, "0:" + "cd" * 32))
        if seen["wallet_balance"] != 5 * 10**9 or seen["contract_state"] != "nonexist":
            raise RuntimeError(f"the stock client sees {seen}")
    finally:
        run(TONFS, "devnet", "down", "--state", str(state))
    return "global config, funded account and absent account through the lite server"


def world(_base: Path) -> str:
    """Not foreign, but too large for the tests."""
    run(sys.executable, "-m", "pytest", "-q", str(WORLD), env={"TONFS_WORLD": "large"}, cwd=ROOT, deadline=900.0)
    return "2000 strangers in a swarm, 20 DHT nodes through 4 hours of deaths, losses and partitions"


JUDGES = (Judge("tonutils", tonutils), Judge("world", world))
