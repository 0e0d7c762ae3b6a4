"""Continuation tokens: the last key shown, opaque to the client, good also after keys are deleted. Pure."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from ..errors import S3Error

_VERSION: Final = b"1"


def make_token(key: bytes) -> str:
    return base64.urlsafe_b64encode(_VERSION + key).decode("ascii")


def read_token(token: str) -> bytes:
    """Raises S3Error(InvalidArgument)."""
    try:
        data = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError):
        data = b""
    if not data.startswith(_VERSION):
        raise S3Error("InvalidArgument", 400, "The continuation token provided is incorrect.")
    return data[1:]
