"""What parts of a job used, taken together."""

from collections.abc import Iterable

from cranehooks.model.limits import Usage


def usage_sum(parts: Iterable[Usage]) -> Usage | None:
    """Of parts that ran side by side or one after the other: CPU time and kills add up, the peak is at least the highest one's."""
    parts = list(parts)
    if not parts:
        return None
    cpu = [part.cpu_s for part in parts if part.cpu_s is not None]
    peaks = [part.memory_peak_bytes for part in parts if part.memory_peak_bytes is not None]
    kills = [part.oom_kills for part in parts if part.oom_kills is not None]
    return Usage(sum(cpu) if cpu else None, max(peaks, default=None), sum(kills) if kills else None)
