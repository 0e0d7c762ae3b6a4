"""The coverage-guided fuzzer (atheris): `python -m tests.fuzz.guided TARGET SECONDS [CORPUS]`.

Ends with 0 when nothing was found. An input that breaks a parser, takes over a second or over 256 MiB is written
beside the corpus and named on stderr; put it into a test before the parser is mended.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["tonfs.bag", "tonfs.bagfiles", "tonfs.chain", "tonfs.control", "tonfs.network"]
):
    from tests.fuzz.targets import TARGETS


def main(name: str, seconds: str, corpus: str | None = None) -> None:
    target = TARGETS[name]
    folder = Path(corpus or tempfile.mkdtemp(prefix="fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (folder / f"seed-{number}").write_bytes(seed)
    options = [
        f"-max_total_time={int(seconds)}",
        "-timeout=1",
        "-rss_limit_mb=256",
        "-max_len=4096",
        "-print_final_stats=1",
        f"-artifact_prefix={folder}/found-",
    ]
    atheris.Setup([sys.argv[0], *options, str(folder)], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
