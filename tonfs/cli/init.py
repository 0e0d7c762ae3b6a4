"""`tonfs init`: a new volume: its directory, settings and keys."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..config import CONFIG_NAME, NETWORKS, render
from ..errors import NotFound, Refused, UsageError
from ..system import from_os
from .common import Context, pass_context, volume_option

FOLDERS = ("content", "packs", "keys", "run", "log")


def make_volume(
    volume: Path,
    *,
    network: str,
    plain: bool = False,
    replicas: int | None = None,
    words: Sequence[str] | None = None,
) -> list[str]:
    """Make a volume. Returns its 24 words; none for the network `none`. The settings file comes last, so that an
    interrupted attempt can be repeated.

    Raises Refused when there is one already, or for a real network without `plain`; UsageError.
    """
    if network in ("testnet", "mainnet") and not plain:
        raise Refused(
            f"Packs cannot be sealed (encrypted) yet, so everything on {network} could be read by anyone.",
            hint="Say --plain if that is what you want, or use --network devnet or none.",
        )
    if replicas is not None and not 1 <= replicas <= 100:
        raise UsageError("The number of replicas must lie between 1 and 100.")
    config = volume / CONFIG_NAME
    if config.exists():
        raise Refused(f"There is a volume at {volume} already.", hint="Name another one with --volume.")
    if network == "none" and words:
        raise UsageError("A volume without network has no wallet, so it needs no words.")
    secret: list[str] = []
    if network != "none":
        from ..chain.wallet import new_words

        secret = list(words) if words else new_words()
    try:
        volume.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in FOLDERS:
            (volume / name).mkdir(mode=0o700, exist_ok=True)
        if secret:
            write_private(volume / "keys" / "words", " ".join(secret) + "\n")
        values: dict[str, Any] = {"network": network}
        if plain:
            values["plain"] = True
        if replicas is not None:
            values["policy"] = {"replica": {"replicas": replicas}}
        write_private(config, render(values))
    except OSError as exc:
        raise from_os(exc, f"The volume {volume} cannot be made") from None
    return secret


def write_private(path: Path, text: str) -> None:
    """A private file that is whole or not there, also after a crash."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def show_words(words: Sequence[str]) -> None:
    """Print the 24 words for the person at the terminal; they are never shown again."""
    click.echo("The 24 words of this volume. Write them down; they are not shown again:", err=True)
    for row in range(0, len(words), 6):
        click.echo(
            "  " + "  ".join(f"{n + 1:2}. {word:<10}" for n, word in enumerate(words[row : row + 6], row)), err=True
        )


def read_words(path: Path) -> list[str]:
    """24 words from a file. Raises NotFound, UsageError, never quoting them."""
    from ..chain.wallet import check_words

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"There is no file {path}.") from None
    except OSError as exc:
        raise UsageError(f"The words in {path} cannot be read: {exc.strerror}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a text of 24 words.") from None
    return check_words(text)


@click.command(help="Make a volume; shows its 24 words once.")
@click.option("--network", type=click.Choice(NETWORKS), default="devnet", show_default=True, help="none: only local.")
@click.option("--replicas", type=click.IntRange(1, 100), metavar="N", help="Providers that shall hold each pack.")
@click.option("--words-file", type=click.Path(path_type=Path), metavar="F", help="Use the 24 words in F, not new ones.")
@click.option("--plain", is_flag=True, help="Accept that everybody can read what is published.")
@volume_option
@pass_context
def command(context: Context, network: str, replicas: int | None, words_file: Path | None, plain: bool) -> None:
    words = read_words(words_file) if words_file is not None else None
    secret = make_volume(context.volume, network=network, plain=plain, replicas=replicas, words=words)
    click.echo(f"Made the volume {context.volume} (network {network}).", err=True)
    if secret and words is None:
        show_words(secret)
