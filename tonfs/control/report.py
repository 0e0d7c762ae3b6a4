"""The reports made of what front and agent say of themselves; shown by the command line and below `.tonfs/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

NO_FILES: Final = {"total": 0, "dirty": 0, "packed": 0, "proven": 0}
NO_BYTES: Final = {"logical": 0, "local": 0, "dirty": 0, "proven": 0}


def status(volume: Path, network: str, front: dict[str, Any] | None, agent: dict[str, Any] | None) -> dict[str, Any]:
    """The object of `tonfs status --json` (docs/cli.md) from both `status` answers; None: it does not answer."""
    said_by_front = front or {}
    said_by_agent = agent or {}
    problems = list(said_by_agent.get("problems", []))
    if front is None:
        problems.append(
            {"code": "TF0004", "text": "The front does not run; start it with 'tonfs up' or 'tonfs mount'."}
        )
    damaged = said_by_front.get("damaged", {})
    if damaged.get("total"):
        count = "a file" if damaged["total"] == 1 else f"{damaged['total']} files"
        names = [repr(path) for path in damaged["paths"]] + ["…"] * (damaged["total"] > len(damaged["paths"]))
        text = f"Bytes of {count} are missing on this disk: {', '.join(names)}. 'tonfs fsck' says more."
        problems.append({"code": "TF0006", "text": text})
    if agent is None and network != "none":
        problems.append(
            {"code": "TF0004", "text": "The agent does not run; start it with 'tonfs up' or 'tonfs agent run'."}
        )
    return {
        "volume": str(volume),
        "network": network,
        "mount": said_by_front.get("mount") or {"path": None, "alive": False},
        "s3": said_by_front.get("s3") or {"url": None, "alive": False},
        "agent": said_by_agent.get("agent") or {"alive": False, "paused": False, "last_error": None},
        "files": said_by_front.get("files", NO_FILES),
        "bytes": said_by_front.get("bytes", NO_BYTES),
        "packs": said_by_agent.get("packs", []),
        "providers": said_by_agent.get("providers", []),
        "money": said_by_agent.get("money", {}),
        "queue": said_by_agent.get("queue", {"transfers": 0, "bytes": 0}),
        "problems": problems,
    }


def why(front: dict[str, Any], agent: dict[str, Any] | None) -> dict[str, Any]:
    """The front's `why` with the placements of each range's bag."""
    packs = {pack["bag_id"]: pack for pack in (agent or {}).get("packs", [])}
    ranges = [
        {**piece, "placements": packs.get(piece.get("bag_id"), {}).get("placements", [])} for piece in front["ranges"]
    ]
    return {**front, "ranges": ranges}


def queue(status: dict[str, Any]) -> dict[str, Any]:
    """What is still to be done: files to pack, and packs that have fewer active replicas than wanted."""
    waiting = []
    for pack in status["packs"]:
        states = [placement["state"] for placement in pack["placements"]]
        if states.count("active") < pack["wanted"]:
            counts = {state: states.count(state) for state in sorted(set(states))}
            waiting.append({"bag_id": pack["bag_id"], "size": pack["size"], "wanted": pack["wanted"], "states": counts})
    return {
        "dirty": {"files": status["files"]["dirty"], "bytes": status["bytes"]["dirty"]},
        "packs": waiting,
        **status["queue"],
        "problems": status["problems"],
    }
