"""Write docs/cli.md from the parser. `--check` fails when the page is not fresh (a test does that)."""

from __future__ import annotations

import sys
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "cli.md"
sys.path.insert(0, str(ROOT))

HEAD = """# The command line

Made from the parser by `scripts/cli_docs.py`; do not edit.

`tonfs [OPTIONS] VERB …`; `--volume` may also stand behind the verbs that name it. Listings take `--json`: one
object that begins with `"schema": "tonfs.<verb>/1"`; in it a byte of a name that is not UTF-8 is a lone surrogate,
`\\udcXX`. Exit codes: 0 done; 1 failed; 2 usage; 3 not found; 4 a needed process is not running; 5 refused by budget,
policy or permission; 6 damaged data found; 7 timed out; 130 interrupted. Every error has a code that
`tonfs help TF####` explains.
"""


def options(command: click.Command, context: click.Context) -> list[str]:
    out = []
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden and parameter.name != "help":
            names = ", ".join(parameter.opts)
            metavar = "" if parameter.is_flag or parameter.count else f" {parameter.make_metavar(context)}"
            out.append(f"* `{names}{metavar}`: {parameter.help or ''}".rstrip(": "))
    return out


def describe(command: click.Command, path: str) -> list[str]:
    context = click.Context(command, info_name=path)
    usage = " ".join(command.collect_usage_pieces(context))
    out = [f"### `{path} {usage}`".replace(" [OPTIONS]", ""), "", (command.help or "").strip(), ""]
    out += [*options(command, context), ""]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                out += describe(below, f"{path} {name}")
    return out


def page() -> str:
    from tonfs.cli.main import VERBS, root

    context = click.Context(root)
    lines = [HEAD, *options(root, context), ""]
    for verb in VERBS:
        command = root.get_command(context, verb)
        if command is not None:
            lines += describe(command, f"tonfs {verb}")
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    text = page()
    if "--check" in sys.argv:
        fresh = PAGE.exists() and PAGE.read_text(encoding="utf-8") == text
        if not fresh:
            print("docs/cli.md is stale: run scripts/cli_docs.py", file=sys.stderr)
        return 0 if fresh else 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


sys.exit(main())
