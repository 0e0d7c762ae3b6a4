"""Write requirements.lock and requirements-dev.lock from what is installed in .venv.

Run after a change of pyproject.toml's dependencies: install or upgrade in .venv first, test, then lock.
"""

from __future__ import annotations

import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent


def closure(requirements: list[str]) -> dict[str, str]:
    """Name -> installed version of these requirements and everything below them."""
    found: dict[str, str] = {}
    queue = [Requirement(r) for r in requirements]
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        extras = requirement.extras or {""}
        if not any(requirement.marker is None or requirement.marker.evaluate({"extra": e}) for e in extras):
            continue
        if name in found:
            continue
        dist = distribution(name)
        found[name] = dist.version
        for line in dist.requires or []:
            below = Requirement(line)
            if below.marker is None or any(below.marker.evaluate({"extra": e}) for e in extras):
                queue.append(below)
    return found


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    run = closure(
        project["project"]["dependencies"]
        + project["project"]["optional-dependencies"]["devnet"]
        + project["build-system"]["requires"]
    )
    dev = {k: v for k, v in closure(project["dependency-groups"]["dev"]).items() if k not in run}
    # A marker of our own requirement stays with its pin, so that the rest installs where that wheel does not exist.
    direct = map(
        Requirement, project["project"]["dependencies"] + project["project"]["optional-dependencies"]["devnet"]
    )
    markers = {canonicalize_name(r.name): f"; {r.marker}" for r in direct if r.marker}
    for name, pins in (("requirements.lock", run), ("requirements-dev.lock", dev)):
        text = "".join(f"{k}=={v}{markers.get(k, '')}\n" for k, v in sorted(pins.items()))
        (ROOT / name).write_text(f"# made by scripts/lock.py\n{text}", encoding="utf-8")


main()
