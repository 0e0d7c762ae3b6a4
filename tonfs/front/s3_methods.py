"""front.sock: access keys and public buckets of the S3 door, changed while it runs."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import trio

from ..control import Handler
from ..errors import UsageError
from ..s3shim.keys import AccessKey, KeyStore, Rights
from ..s3shim.mapping import bucket_visible


def shown(key: AccessKey) -> dict[str, Any]:
    """A key without its secret."""
    return {"access_key": key.access_key, "bucket": key.bucket, "rights": key.rights.word, "created": key.created}


class S3Methods:
    """Handlers of the control socket; they change the same store that the door asks."""

    def __init__(self, keys: KeyStore) -> None:
        self._keys = keys

    def handlers(self) -> dict[str, Handler]:
        return {
            "s3_key_new": self.key_new,
            "s3_key_list": self.key_list,
            "s3_key_revoke": self.key_revoke,
            "s3_public_list": self.public_list,
            "s3_public_set": self.public_set,
        }

    async def key_new(self, params: dict[str, Any]) -> dict[str, Any]:
        """{bucket, rights} -> {access_key, secret_key, bucket, rights, created}; bucket "" opens all."""
        bucket, rights = _bucket(params) if params.get("bucket") else "", Rights.parse(_text(params, "rights"))
        made = await trio.to_thread.run_sync(partial(self._keys.new, bucket, rights))
        return {**shown(made), "secret_key": made.secret_key.reveal().decode()}

    async def key_list(self, params: dict[str, Any]) -> dict[str, Any]:
        """{} -> {keys[{access_key, bucket, rights, created}]}"""
        return {"keys": [shown(key) for key in await trio.to_thread.run_sync(self._keys.list)]}

    async def key_revoke(self, params: dict[str, Any]) -> dict[str, Any]:
        """{access_key} -> {}; it is refused from then on. Raises NotFound."""
        await trio.to_thread.run_sync(self._keys.revoke, _text(params, "access_key"))
        return {}

    async def public_list(self, params: dict[str, Any]) -> dict[str, Any]:
        """{} -> {buckets}"""
        return {"buckets": list(await trio.to_thread.run_sync(self._keys.public))}

    async def public_set(self, params: dict[str, Any]) -> dict[str, Any]:
        """{bucket, public} -> {}; anybody may read a public bucket."""
        public = params.get("public")
        if not isinstance(public, bool):
            raise UsageError("The parameter 'public' is true or false.")
        bucket = _bucket(params) if public else _text(params, "bucket")
        await trio.to_thread.run_sync(self._keys.set_public, bucket, public)
        return {}


def _text(params: dict[str, Any], name: str) -> str:
    value = params.get(name)
    if not isinstance(value, str):
        raise UsageError(f"The parameter {name!r} is missing or no text.")
    return value


def _bucket(params: dict[str, Any]) -> str:
    name = _text(params, "bucket")
    if not bucket_visible(os.fsencode(name)):
        raise UsageError(
            f"No bucket can be called {name!r}.", hint="A name has 3 to 63 letters, digits, '.', '-' and '_'."
        )
    return name
