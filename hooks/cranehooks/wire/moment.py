"""Points in time and spans as floats of seconds, which protobuf splits into seconds and nanoseconds."""

import math

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_NANOS = 1_000_000_000


def _split(value_s: float) -> tuple[int, int]:
    """Whole seconds and 0 ≤ nanoseconds < 10⁹; the fraction is taken first, since a product would lose its last digits."""
    whole = math.floor(value_s)
    nanos = round((value_s - whole) * _NANOS)
    return (whole + 1, 0) if nanos == _NANOS else (whole, nanos)


def timestamp(since_epoch_s: float) -> Timestamp:
    whole, nanos = _split(since_epoch_s)
    return Timestamp(seconds=whole, nanos=nanos)


def duration(span_s: float) -> Duration:
    whole, nanos = _split(abs(span_s))
    return Duration(seconds=whole, nanos=nanos) if span_s >= 0 else Duration(seconds=-whole, nanos=-nanos)


def seconds(value: Timestamp | Duration) -> float:
    """Seconds since the epoch, or of the span; 0 for a message that was not set."""
    return (value.seconds * _NANOS + value.nanos) / _NANOS
