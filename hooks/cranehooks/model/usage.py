"""What parts of a job used, taken together."""

from collections.abc import Iterable

from cranehooks.model.limits import Usage


def usage_of(whole: Usage, parts: Iterable[Usage]) -> Usage:
    """Of something and its parts: where the whole does not tell, its parts do. Some controllers count kills in the parts only."""
    total = usage_sum(parts) or Usage()
    kills = [each.oom_kills for each in (whole, total) if each.oom_kills is not None]
    return Usage(
        total.cpu_s if whole.cpu_s is None else whole.cpu_s,
        total.memory_peak_bytes if whole.memory_peak_bytes is None else whole.memory_peak_bytes,
        max(kills, default=None),
    )


def usage_text(usage: Usage) -> str:
    """For people: `2.4 s of CPU, at most 61.3 MiB of memory, 1 process killed for want of memory`."""
    words = []
    if usage.cpu_s is not None:
        words.append(f"{usage.cpu_s:.1f} s of CPU" if usage.cpu_s >= 1 else f"{usage.cpu_s:.3f} s of CPU")
    if usage.memory_peak_bytes is not None:
        words.append(f"at most {usage.memory_peak_bytes / (1 << 20):.1f} MiB of memory")
    if usage.oom_kills:
        words.append(f"{usage.oom_kills} process{'es' if usage.oom_kills > 1 else ''} killed for want of memory")
    return ", ".join(words) or "not known"


def usage_sum(parts: Iterable[Usage]) -> Usage | None:
    """Of parts that ran side by side or one after the other: CPU time and kills add up, the peak is at least the highest one's."""
    parts = list(parts)
    if not parts:
        return None
    cpu = [part.cpu_s for part in parts if part.cpu_s is not None]
    peaks = [part.memory_peak_bytes for part in parts if part.memory_peak_bytes is not None]
    kills = [part.oom_kills for part in parts if part.oom_kills is not None]
    return Usage(sum(cpu) if cpu else None, max(peaks, default=None), sum(kills) if kills else None)
