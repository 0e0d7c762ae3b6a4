"""The S3 door: HTTP with AWS signatures on one side, the namespace that the mount shows on the other.

Public: `serve_s3` (tonfs.s3shim.app), `KeyStore`, `AccessKey`, `Rights` (tonfs.s3shim.keys). The server is not
imported here, so that verbs about keys start without aiohttp.
"""

from .keys import AccessKey, KeyStore, Rights

__all__ = ["AccessKey", "KeyStore", "Rights"]
