"""The one tree of errors.

Each class carries what every surface needs: the sentence for the user (the message), what to do next (`hint`),
a stable code (`tonfs help TF####`), the errno for the mount, the S3 code for the door, the exit code for the
shell, and whether trying again can help.
"""

from __future__ import annotations

import errno
from typing import ClassVar, Final


class TonfsError(Exception):
    """Something went wrong that tonfs knows how to name."""

    code: ClassVar[str] = "TF0001"
    errno: ClassVar[int] = errno.EIO
    s3_code: ClassVar[str] = "InternalError"
    s3_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    transient: ClassVar[bool] = False
    hint: str = ""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        if hint is not None:
            self.hint = hint

    @property
    def message(self) -> str:
        return str(self.args[0])


class UsageError(TonfsError):
    """An argument, option or setting is wrong."""

    code = "TF0002"
    errno = errno.EINVAL
    s3_code = "InvalidArgument"
    s3_status = 400
    exit_code = 2


class NotFound(TonfsError):
    """What was named does not exist."""

    code = "TF0003"
    errno = errno.ENOENT
    s3_code = "NoSuchKey"
    s3_status = 404
    exit_code = 3


class NotRunning(TonfsError):
    """A process that is needed does not run or does not answer."""

    code = "TF0004"
    errno = errno.EIO
    s3_code = "ServiceUnavailable"
    s3_status = 503
    exit_code = 4
    transient = True


class Refused(TonfsError):
    """Budget, policy or permission says no."""

    code = "TF0005"
    errno = errno.EPERM
    s3_code = "AccessDenied"
    s3_status = 403
    exit_code = 5


class Damaged(TonfsError):
    """Data does not match its hash, or a file of ours cannot be what it claims to be."""

    code = "TF0006"
    errno = errno.EIO
    exit_code = 6


class TimedOut(TonfsError):
    """A deadline passed. Nothing is known about the other side."""

    code = "TF0007"
    errno = errno.EIO
    s3_code = "ServiceUnavailable"
    s3_status = 503
    exit_code = 7
    transient = True


class Busy(TonfsError):
    """Somebody else holds what is needed."""

    code = "TF0008"
    errno = errno.EBUSY
    s3_code = "SlowDown"
    s3_status = 503
    exit_code = 1
    transient = True


class NoSpace(TonfsError):
    """The disk below the volume is full."""

    code = "TF0009"
    errno = errno.ENOSPC
    s3_code = "InsufficientStorage"
    s3_status = 507


# Foreign bytes.


class BadData(TonfsError):
    """Bytes from outside break the rules of their format."""

    code = "TF0100"
    errno = errno.EIO
    exit_code = 6


class BadBag(BadData):
    """A bag's description, header or proof is not acceptable."""

    code = "TF0101"


class BadPiece(BadData):
    """A piece does not match the bag's root hash."""

    code = "TF0102"


class BadPacket(BadData):
    """A datagram or TL object is malformed."""

    code = "TF0103"


class BadProof(BadData):
    """A lite server's answer does not prove what it says."""

    code = "TF0104"
    transient = True


# Network.


class PeerTimeout(TimedOut):
    """A peer did not answer in time."""

    code = "TF0201"


class PeerUnreachable(TonfsError):
    """No address is known for a peer, or nobody has the bag."""

    code = "TF0202"
    transient = True


class DhtUnavailable(TonfsError):
    """No DHT node answers: we are probably offline. Says nothing about any peer or provider."""

    code = "TF0203"
    transient = True


class TooFewProviders(TonfsError):
    """Fewer storage providers can be hired than replicas are wanted; what is stored already stays stored."""

    code = "TF0204"
    transient = True
    hint = (
        "tonfs goes on trying by itself. More providers, a higher policy.replica.max_rate or fewer "
        "policy.replica.replicas help."
    )


class NoCopy(TonfsError):
    """A bag's data is neither on this disk nor at a provider that passes its audits."""

    code = "TF0205"
    transient = True
    hint = "Bring back the pack's directory or the providers that hold it; nothing is paid or removed meanwhile."


# Chain.


class ChainUnavailable(TonfsError):
    """No lite server answers. Says nothing about any provider."""

    code = "TF0301"
    transient = True
    hint = "Check the network connection and the lite servers in the global config; tonfs tries again by itself."


class ExternalRefused(TonfsError):
    """The wallet did not accept the signed message (wrong seqno, expired, or not enough coins)."""

    code = "TF0302"


class GetMethodFailed(TonfsError):
    """A contract's get method ended with an exit code other than 0 or 1."""

    code = "TF0303"

    def __init__(self, message: str, exit_code: int, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.vm_exit_code = exit_code


class InsufficientCoins(Refused):
    """The wallet holds less than the action needs."""

    code = "TF0304"


class BlockUnknown(NotFound):
    """A lite server was asked for a block that it does not know, or no longer keeps the state of."""

    code = "TF0305"


class IntentFailed(TonfsError):
    """A payment was signed but did not do what was wanted; the message says what the chain shows."""

    code = "TF0306"


# Volume.


class Stale(TonfsError):
    """The inode changed since the version that was packed; it will be packed again."""

    code = "TF0401"
    transient = True


class FsError(TonfsError):
    """A file operation that POSIX refuses: the errno says why (ENOENT, EEXIST, ENOTEMPTY, ...)."""

    code = "TF0402"

    def __init__(self, message: str, number: int = errno.EIO, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        object.__setattr__(self, "errno", number)


# The S3 door.


class S3Error(TonfsError):
    """An S3 request is answered with this S3 code and HTTP status; the message is shown to the client."""

    code = "TF0501"

    def __init__(
        self,
        s3_code: str,
        status: int,
        message: str,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.headers = headers
        object.__setattr__(self, "s3_code", s3_code)
        object.__setattr__(self, "s3_status", status)


class Unsupported(TonfsError):
    """tonfs does not do this (yet), and says so instead of doing something else."""

    code = "TF0010"
    errno = errno.ENOTSUP
    s3_code = "NotImplemented"
    s3_status = 501
    exit_code = 2


def _tree(base: type[TonfsError]) -> list[type[TonfsError]]:
    return [base] + [c for sub in base.__subclasses__() for c in _tree(sub)]


BY_CODE: Final[dict[str, type[TonfsError]]] = {cls.code: cls for cls in _tree(TonfsError)}


OTHER_USER: Final = "Run it as the user whom the files belong to, or as root."


def denied(exc: OSError) -> Refused:
    """The system does not let this user do it."""
    return Refused(f"{exc.filename or 'Something of it'}: {exc.strerror}.", hint=OTHER_USER)


def from_code(code: str, message: str, hint: str = "") -> TonfsError:
    """Rebuild an error that crossed a control socket; an unknown code becomes a plain TonfsError."""
    cls = BY_CODE.get(code, TonfsError)
    if cls is GetMethodFailed:
        return GetMethodFailed(message, -1, hint=hint or None)
    if cls is S3Error:
        return S3Error("InternalError", 500, message, hint=hint or None)
    return cls(message, hint=hint or None)
