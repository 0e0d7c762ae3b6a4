"""`tonfs s3 serve` and `tonfs s3 key new|list|revoke`."""

from __future__ import annotations

import logging

import click
from rich.console import Console
from rich.table import Table

from ..clock import rfc3339
from ..control.process import die_with_parent
from .common import Context, emit, json_option, pass_context, volume_option


@click.group(help="The S3 door and its access keys.")
def command() -> None:
    """The door usually runs beside the mount (`tonfs up --s3`, `mount -o s3=`)."""


@command.command(help="Serve a volume over S3 without mounting it, until SIGTERM or Ctrl-C.")
@click.option("--listen", metavar="HOST:PORT", help="Where to listen. Default: s3.listen of config.toml.")
@volume_option
@pass_context
def serve(context: Context, listen: str | None) -> None:
    from ..front import FrontConfig, run_front

    die_with_parent()
    settings = context.settings()
    context.configure_log(logging.INFO)
    address = listen if listen is not None else settings.s3.listen
    run_front(FrontConfig(volume=context.volume, settings=settings, s3_listen=address))


@command.group(help="Access keys. Changes take effect at once, also in a door that runs.")
def key() -> None:
    """A key opens all buckets or one of them, for reading, writing or everything."""


@key.command("new", help="Make an access key and show its secret, once.")
@click.option("--bucket", default="", metavar="B", help="The only bucket it opens. Default: all.")
@click.option("--rights", type=click.Choice(["read", "write", "admin"]), default="admin", show_default=True)
@json_option
@volume_option
@pass_context
def new(context: Context, bucket: str, rights: str, as_json: bool) -> None:
    from ..s3shim.keys import KeyStore, Rights

    context.settings()
    made = KeyStore(context.volume / "keys").new(bucket, Rights.parse(rights))
    secret = made.secret_key.reveal().decode()
    if as_json:
        emit(
            "s3.key.new",
            {
                "access_key": made.access_key,
                "secret_key": secret,
                "bucket": made.bucket or None,
                "rights": made.rights.word,
                "created": rfc3339(made.created),
            },
        )
        return
    click.echo(f"access key  {made.access_key}\nsecret key  {secret}")


@key.command("list", help="Show the access keys, without their secrets.")
@json_option
@volume_option
@pass_context
def list_keys(context: Context, as_json: bool) -> None:
    from ..s3shim.keys import KeyStore

    context.settings()
    keys = KeyStore(context.volume / "keys").list()
    if as_json:
        rows = [
            {
                "access_key": item.access_key,
                "bucket": item.bucket or None,
                "rights": item.rights.word,
                "created": rfc3339(item.created),
            }
            for item in keys
        ]
        emit("s3.key.list", {"keys": rows})
        return
    table = Table("access key", "bucket", "rights", "created", box=None)
    for item in keys:
        table.add_row(item.access_key, item.bucket or "all", item.rights.word, rfc3339(item.created) or "")
    Console().print(table)


@key.command("revoke", help="Make an access key useless.")
@click.argument("access_key")
@volume_option
@pass_context
def revoke(context: Context, access_key: str) -> None:
    from ..s3shim.keys import KeyStore

    context.settings()
    KeyStore(context.volume / "keys").revoke(access_key)
