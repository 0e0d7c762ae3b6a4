"""What the agent says of itself: the `packs`, `providers`, `money`, `queue` of reference cli.md section 3."""

from __future__ import annotations

from typing import Any

from ..clock import rfc3339
from ..errors import TonfsError
from ..ids import NanoTon, ProviderKey
from .context import Agent
from .placement import PAID, State
from .store import Bag, Placement


def placement_row(bag: Bag, placement: Placement) -> dict[str, Any]:
    audit = None
    if placement.audit_at is not None and placement.audit_verdict is not None:
        audit = {
            "at": rfc3339(placement.audit_at),
            "verdict": placement.audit_verdict.value,
            "pieces": placement.audit_pieces,
            "bytes": placement.audit_bytes,
        }
    return {
        "provider": placement.provider.hex(),
        "state": placement.state.value,
        "contract": bag.contract,
        "since": rfc3339(placement.since),
        "last_proof": rfc3339(placement.last_proof) if placement.last_proof else None,
        "last_audit": audit,
        "reason": placement.reason,
    }


def packs(agent: Agent) -> list[dict[str, Any]]:
    """Live and closing packs with every placement they ever had."""
    by_bag = agent.store.placements_by_bag()
    return [
        {
            "id": bag.bag_id.hex()[:16],
            "bag_id": bag.bag_id.hex(),
            "size": bag.size,
            "files": bag.files,
            "wanted": agent.wanted(bag) if bag.state == "live" else 0,
            "state": bag.state,
            "local": bag.local,
            "contract": bag.contract,
            "placements": [placement_row(bag, p) for p in by_bag.get(bag.bag_id, [])],
        }
        for bag in agent.store.bags("live", "closing")
    ]


def providers(agent: Agent) -> list[dict[str, Any]]:
    """Every provider ever quoted. `state`: failed while it is avoided after a failure, else suspect, hired or idle."""
    now, base = agent.clock.now(), agent.settings.policy.replica.avoid_failed
    states: dict[ProviderKey, set[State]] = {}
    for placement in agent.store.placements():
        states.setdefault(placement.provider, set()).add(placement.state)
    rows = []
    for info in agent.store.providers().values():
        mine = states.get(info.key, set())
        state = "suspect" if State.SUSPECT in mine else "hired" if mine & PAID else "idle"
        rows.append(
            {
                "key": info.key.hex(),
                "address": agent.money.provider_address(info.key),
                "state": "failed" if now < info.avoid_until(base) else state,
                "price": info.price,
                "score": round(1.0 / (1 + info.failures), 3),
                "failures": info.failures,
                "last_answer": rfc3339(agent.heard.get(info.key, info.answered_at)),
            }
        )
    return rows


async def money(agent: Agent) -> dict[str, Any]:
    """Coins of the wallet and in contracts. `cap_month` is null: budgets are not built yet."""
    try:
        balance: int | None = await agent.money.balance()
        committed = agent.money.committed()
    except TonfsError as exc:
        agent.problems.report("chain", exc)
        balance, committed = None, NanoTon(0)
    else:
        agent.problems.clear("chain")
    per_day = 0
    placements = agent.store.placements_by_bag()
    for bag in agent.store.bags("live"):
        per_day += sum(bag.size * p.rate for p in placements.get(bag.bag_id, []) if p.state in PAID) >> 20
    return {
        "balance": balance or 0,
        "address": agent.money.address,
        "spent_month": agent.money.spent_since(agent.clock.now() - 30 * 86400),
        "cap_month": None,
        "committed": committed,
        "runway_days": (committed + (balance or 0)) // per_day if per_day else None,
    }


async def status(agent: Agent) -> dict[str, Any]:
    rows = packs(agent)
    coins = await money(agent)
    missing = sum(max(0, p["wanted"] - sum(x["state"] == "active" for x in p["placements"])) * p["size"] for p in rows)
    moving = sum(x["state"] in ("quoted", "funding") for p in rows for x in p["placements"])
    problems = [{"code": problem.code, "text": problem.text} for problem in agent.problems]
    return {
        "agent": {
            "alive": True,
            "paused": agent.paused,
            "last_error": problems[0]["text"] if problems else None,
        },
        "packs": rows,
        "providers": providers(agent),
        "money": coins,
        "queue": {"transfers": moving, "bytes": missing},
        "problems": problems,
    }
