"""The one table between our errors and gRPC's status codes, and the delay that a refusal may come with."""

import grpc

from cranekit.errors import CraneError, ErrorCode

STATUS: dict[ErrorCode, grpc.StatusCode] = {
    ErrorCode.INVALID_ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    ErrorCode.ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    ErrorCode.FAILED_PRECONDITION: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorCode.OUT_OF_RANGE: grpc.StatusCode.OUT_OF_RANGE,
    ErrorCode.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    ErrorCode.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    ErrorCode.RESOURCE_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    ErrorCode.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
    ErrorCode.ABORTED: grpc.StatusCode.ABORTED,
    ErrorCode.UNIMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
    ErrorCode.INTERNAL: grpc.StatusCode.INTERNAL,
}

_CODES = {status: code for code, status in STATUS.items()}

_RETRYABLE = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.DEADLINE_EXCEEDED, ErrorCode.RESOURCE_EXHAUSTED, ErrorCode.ABORTED})


RETRY_AFTER = "crane-retry-after-ms"
"""Key of the trailing metadata that says after how many milliseconds a refused call may be made again."""

LONGEST_RETRY_S = 3600.0


def retry_metadata(error: CraneError) -> tuple[tuple[str, str], ...]:
    """What goes with the status of a refusal."""
    return () if error.retry_after_s is None else ((RETRY_AFTER, str(round(error.retry_after_s * 1000))),)


def error_from_rpc(error: grpc.aio.AioRpcError) -> CraneError:
    """What a failed call means here. Statuses we never send count as INTERNAL."""
    code = _CODES.get(error.code(), ErrorCode.INTERNAL)
    message = error.details() or error.code().name
    return CraneError(code, message, retryable=code in _RETRYABLE, retry_after_s=_retry_after_s(error))


def _retry_after_s(error: grpc.aio.AioRpcError) -> float | None:
    text = next((value for key, value in error.trailing_metadata() or () if key == RETRY_AFTER), None)
    if not isinstance(text, str) or not text.isdecimal() or len(text) > 12:
        return None
    return min(int(text) / 1000, LONGEST_RETRY_S)
