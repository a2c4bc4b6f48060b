"""Figures with their spread and target, as a table and as records."""

import datetime as dt
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is run."""

    engine_runs: int = 400
    latency_pairs: int = 40
    batch_pairs: int = 8
    jobs: int = 1000
    steps: int = 200
    waiting_jobs: int = 10_000
    nodes: int = 1000

    @classmethod
    def quick(cls) -> Self:
        return cls(engine_runs=30, latency_pairs=3, batch_pairs=1, jobs=20, steps=8, waiting_jobs=200, nodes=100)


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value."""

    name: str
    value: float
    unit: str
    low: float
    high: float
    """The spread: 5th and 95th percentile, or the value itself where there is one."""
    at_most: float | None = None
    at_least: float | None = None
    """The target; neither: it is told for comparison."""
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        if self.at_most is not None:
            return self.value <= self.at_most
        if self.at_least is not None:
            return self.value >= self.at_least
        return None


def median_of(name: str, values: Sequence[float], unit: str, **named: Any) -> Figure:  # the fields of Figure
    """The median, with the 5th and 95th percentile."""
    return Figure(name, statistics.median(values), unit, quantile(values, 0.05), quantile(values, 0.95), **named)


def ratio_of(name: str, ours: Sequence[float], theirs: Sequence[float], **named: Any) -> Figure:  # the fields of Figure
    """The ratio of the medians; the spread is that of the pairs, measured in turn."""
    pairs = [one / other for one, other in zip(ours, theirs, strict=True)]
    value = statistics.median(ours) / statistics.median(theirs)
    return Figure(name, value, "×", quantile(pairs, 0.05), quantile(pairs, 0.95), **named)


def single(name: str, value: float, unit: str, **named: Any) -> Figure:  # the fields of Figure
    """A value that is measured once."""
    return Figure(name, value, unit, value, value, **named)


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(figures: Sequence[Figure], title: str) -> str:
    rows = [("FIGURE", "VALUE", "SPREAD", "TARGET", "", "")]
    rows += [
        (figure.name, f"{figure.value:.3g} {figure.unit}", _spread(figure), _target(figure), _verdict(figure), figure.note)
        for figure in figures
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join((f"== {title}", *lines, ""))


def as_record(figure: Figure) -> dict[str, Any]:  # JSON
    return {**asdict(figure), "is_met": figure.is_met}


def history_record(figures: Sequence[Figure]) -> dict[str, Any]:  # JSON
    """Of one commit: what can be compared between machines and days."""
    commit = subprocess.run(["/usr/bin/git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    return {
        "commit": commit.stdout.strip(),
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "ratios": {figure.name: round(figure.value, 4) for figure in figures if figure.unit == "×"},
        "values": {figure.name: round(figure.value, 4) for figure in figures if figure.unit != "×"},
    }


def _spread(figure: Figure) -> str:
    return "" if figure.low == figure.high else f"{figure.low:.3g} to {figure.high:.3g}"


def _target(figure: Figure) -> str:
    if figure.at_most is not None:
        return f"≤ {figure.at_most:g}"
    return "" if figure.at_least is None else f"≥ {figure.at_least:g}"


def _verdict(figure: Figure) -> str:
    return {True: "met", False: "MISSED", None: ""}[figure.is_met]
