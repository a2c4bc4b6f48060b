"""The root of the project's errors. Standard library only: the front ends import it."""

from enum import Enum


class ErrorCode(Enum):
    """What kind of failure this is; `cranekit.rpc.status` maps each to a gRPC status."""

    INVALID_ARGUMENT = "invalid_argument"
    NOT_FOUND = "not_found"
    ALREADY_EXISTS = "already_exists"
    FAILED_PRECONDITION = "failed_precondition"
    OUT_OF_RANGE = "out_of_range"
    PERMISSION_DENIED = "permission_denied"
    UNAUTHENTICATED = "unauthenticated"
    RESOURCE_EXHAUSTED = "resource_exhausted"
    UNAVAILABLE = "unavailable"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    ABORTED = "aborted"
    UNIMPLEMENTED = "unimplemented"
    INTERNAL = "internal"


class CraneError(Exception):
    """A failure with a kind and a message for a person: what was being done, to what, what was expected.

    `retryable` says whether the same call may succeed later; `retry_after_s`, how many seconds to wait before (that makes it retryable).
    """

    def __init__(self, code: ErrorCode, message: str, *, retryable: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable or retry_after_s is not None
        self.retry_after_s = retry_after_s
