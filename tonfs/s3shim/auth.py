"""Who asks, by whichever of the ways that are accepted: SigV4 header or URL, SigV2 URL, public bucket."""

from __future__ import annotations

from ..errors import S3Error
from . import sigv2, sigv4
from .keys import KeyStore, anonymous_reader
from .router import OVERRIDES
from .sigv4 import Identity, PayloadKind, Request


def identify(request: Request, keys: KeyStore, *, now: float, region: str, presigned_v2: bool) -> Identity:
    """Raises S3Error; see `sigv4.authenticate` and `sigv2.by_query`."""
    authorization = request.header("authorization")
    if authorization is not None and authorization.lstrip().startswith("AWS "):
        raise sigv2.refused()
    if request.query and sigv2.is_presigned(request):
        if authorization is not None:
            raise S3Error("InvalidArgument", 400, "Only one auth mechanism allowed; both header and query were given.")
        if not presigned_v2:
            raise sigv2.refused()
        return sigv2.by_query(request, keys.find, now)
    if authorization is None and not sigv4.is_presigned(request):
        return _nobody(request, keys)
    return sigv4.authenticate(request, keys.find, now=now, region=region)


def _nobody(request: Request, keys: KeyStore) -> Identity:
    bucket = request.raw_path[1:].partition("/")[0]
    if request.method not in ("GET", "HEAD") or not bucket or not keys.is_public(bucket):
        raise sigv4.anonymous()
    if any(name in OVERRIDES for name, _, _ in request.query):
        raise S3Error("InvalidRequest", 400, "Request specific response headers need a signature.")
    nobody = anonymous_reader(bucket)
    return Identity(nobody, PayloadKind.EXACT, sigv4.EMPTY_SHA256, "", "", "", b"", presigned=False)
