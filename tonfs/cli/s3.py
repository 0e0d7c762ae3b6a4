"""`tonfs s3 serve`, `tonfs s3 key new|list|revoke`, `tonfs s3 public add|remove|list`, `tonfs s3 policy …`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from ..clock import rfc3339
from ..control import call_sync
from ..control.process import die_with_parent
from ..errors import NotRunning
from .common import Context, emit, json_option, pass_context, show_table, volume_option
from .policy import parse_settings


@click.group(help="The S3 door and its access keys.")
def command() -> None:
    """The door usually runs beside the mount (`tonfs up --s3`, `mount -o s3=`)."""


@command.command(help="Serve a volume over S3 without mounting it, until SIGTERM or Ctrl-C.")
@click.option("--listen", metavar="HOST:PORT", help="Where to listen. Default: s3.listen of config.toml.")
@click.option("--tls-certificate", metavar="FILE", help="PEM file: serve HTTPS. Default: s3.tls_certificate.")
@click.option("--tls-key", metavar="FILE", help="PEM file with its key. Default: s3.tls_key, or the same file.")
@click.option(
    "--remote-without-tls",
    is_flag=True,
    help="Let other machines in over plain HTTP; s3.remote_without_tls must say so, too.",
)
@volume_option
@pass_context
def serve(
    context: Context, listen: str | None, tls_certificate: str | None, tls_key: str | None, remote_without_tls: bool
) -> None:
    from ..front import FrontConfig, run_front

    die_with_parent()
    given = {"tls_certificate": _absolute(tls_certificate), "tls_key": _absolute(tls_key)}
    settings = context.settings({"s3": {name: value for name, value in given.items() if value}})
    context.configure_log(logging.INFO)
    address = listen if listen is not None else settings.s3.listen
    run_front(
        FrontConfig(
            volume=context.volume, settings=settings, s3_listen=address, s3_remote_without_tls=remote_without_tls
        )
    )


def _absolute(path: str | None) -> str | None:
    """The front works in another directory."""
    return str(Path(path).expanduser().absolute()) if path else None


class _Keys:
    """The access keys of a volume: through the door while one runs, else straight in their file."""

    def __init__(self, context: Context) -> None:
        self._settings = context.settings()
        self._volume = context.volume
        self._socket = self._volume / "run" / "front.sock"
        try:
            self._door = bool(call_sync(self._socket, "ping", who="front", timeout=5.0)["s3"]["alive"])
        except NotRunning:
            self._door = False

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        """The front's method of this name. Raises what it raises."""
        if self._door:
            return call_sync(self._socket, method, params, who="front")
        import trio

        from ..front.s3_methods import S3Methods
        from ..s3shim.keys import open_store

        return trio.run(S3Methods(open_store(self._volume, self._settings.s3)).handlers()[method], params)


@command.group(help="Access keys. Changes take effect at once, also in a door that runs.")
def key() -> None:
    """A key opens all buckets or one of them, for reading, writing or everything."""


@key.command("new", help="Make an access key and show its secret, once.")
@click.option("--bucket", default="", metavar="B", help="The only bucket it opens. Default: all.")
@click.option(
    "--rights",
    type=click.Choice(["read", "write", "admin"]),
    default="admin",
    show_default=True,
    help="What it allows.",
)
@json_option
@volume_option
@pass_context
def new(context: Context, bucket: str, rights: str, as_json: bool) -> None:
    made = _Keys(context)("s3_key_new", bucket=bucket, rights=rights)
    if as_json:
        emit(
            "s3.key.new",
            {"access_key": made["access_key"], "secret_key": made["secret_key"], **_opens(made)},
        )
        return
    click.echo(f"access key  {made['access_key']}\nsecret key  {made['secret_key']}")


def _opens(item: dict[str, Any]) -> dict[str, Any]:
    return {"bucket": item["bucket"] or None, "rights": item["rights"], "created": rfc3339(item["created"])}


@key.command("list", help="Show the access keys, without their secrets.")
@json_option
@volume_option
@pass_context
def list_keys(context: Context, as_json: bool) -> None:
    keys = _Keys(context)("s3_key_list")["keys"]
    if as_json:
        emit("s3.key.list", {"keys": [{"access_key": item["access_key"], **_opens(item)} for item in keys]})
        return
    if not keys:
        click.echo("There are no access keys; 'tonfs s3 key new' makes one.", err=True)
        return
    rows = [(k["access_key"], k["bucket"] or "all", k["rights"], rfc3339(k["created"]) or "") for k in keys]
    show_table(("access key", "bucket", "rights", "created"), rows)


@key.command("revoke", help="Make an access key useless.")
@click.argument("access_key")
@volume_option
@pass_context
def revoke(context: Context, access_key: str) -> None:
    _Keys(context)("s3_key_revoke", access_key=access_key)


@command.group(help="Buckets that anybody may read, without a key.")
def public() -> None:
    """Nothing is public unless it is named here."""


@public.command("add", help="Let anybody who reaches the door read a bucket.")
@click.argument("bucket")
@volume_option
@pass_context
def public_add(context: Context, bucket: str) -> None:
    _Keys(context)("s3_public_set", bucket=bucket, public=True)


@public.command("remove", help="Ask for a key again.")
@click.argument("bucket")
@volume_option
@pass_context
def public_remove(context: Context, bucket: str) -> None:
    _Keys(context)("s3_public_set", bucket=bucket, public=False)


@public.command("list", help="Show the public buckets.")
@json_option
@volume_option
@pass_context
def public_list(context: Context, as_json: bool) -> None:
    buckets = _Keys(context)("s3_public_list")["buckets"]
    if as_json:
        emit("s3.public.list", {"buckets": buckets})
    else:
        click.echo("\n".join(buckets) if buckets else "No bucket is public.")


@command.group(help="Policies of buckets: replicas, pin. As 'tonfs policy', without a mount; a door must run.")
def policy() -> None:
    """A bucket is a directory, and its objects do what the nearest directory says."""


def _ask(context: Context, method: str, **params: Any) -> dict[str, Any]:
    return call_sync(context.volume / "run" / "front.sock", method, params, who="front")


@policy.command("set", help="Set policies of BUCKET: replicas=N (this many providers hold it), pin=true.")
@click.argument("bucket")
@click.argument("settings", nargs=-1, required=True, metavar="NAME=VALUE…")
@volume_option
@pass_context
def policy_set(context: Context, bucket: str, settings: tuple[str, ...]) -> None:
    for name, value in parse_settings(settings):
        _ask(context, "policy_set", path=bucket, name=name, value=value)


@policy.command("unset", help="Take policies of BUCKET back; the volume's hold again.")
@click.argument("bucket")
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@volume_option
@pass_context
def policy_unset(context: Context, bucket: str, names: tuple[str, ...]) -> None:
    for name in names:
        _ask(context, "policy_set", path=bucket, name=name, value=None)


@policy.command("show", help="Show what is said for BUCKET.")
@click.argument("bucket")
@json_option
@volume_option
@pass_context
def policy_show(context: Context, bucket: str, as_json: bool) -> None:
    said = _ask(context, "policy", path=bucket)["policies"]
    if as_json:
        emit("s3.policy", {"bucket": bucket, "policies": said})
    else:
        click.echo("\n".join(f"{name} = {value}" for name, value in said.items()) or "Nothing is said for it.")
