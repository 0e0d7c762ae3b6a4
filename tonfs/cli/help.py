"""`tonfs help`: the verbs, or what an error code means."""

from __future__ import annotations

import inspect

import click

from ..errors import BY_CODE, NotFound
from .common import nearest
from .main import VERBS


@click.command(help="Explain an error code (TF####) or list the verbs.")
@click.argument("topic", required=False)
def command(topic: str | None) -> None:
    if topic is None:
        for verb, text in VERBS.items():
            click.echo(f"{verb:12} {text}")
        return
    cls = BY_CODE.get(topic.upper())
    if cls is not None:
        click.echo(f"{cls.code}: {inspect.getdoc(cls)}")
        click.echo(f"Exit code {cls.exit_code}; trying again {'can' if cls.transient else 'does not'} help by itself.")
        if cls.hint:
            click.echo(cls.hint)
        return
    if topic in VERBS:
        click.echo(f"{topic}: {VERBS[topic]} See 'tonfs {topic} --help'.")
        return
    hint = nearest(topic, VERBS) or "Give a verb or an error code such as TF0004."
    raise NotFound(f"There is no help on {topic!r}.", hint=hint)
