"""Measures what hooks cost, beside a real Slurm where one is installed, and says which targets are met.

    python -m bench [--quick] [--only NAME …] [--json FILE] [--history FILE]

Every figure is a ratio, or stands beside its counterpart of the same run: machines differ, and one machine differs from hour to hour.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench import escapes, hook_engine, latency, memory, throughput
from bench.figures import Figure, Scale, as_record, history_record, table

CHAPTERS: dict[str, Callable[[Scale], list[Figure]]] = {
    "engine": hook_engine.figures,
    "latency": latency.figures,
    "throughput": throughput.figures,
    "memory": memory.figures,
    "escapes": escapes.figures,
}


def main() -> int:
    """0: everything was measured (targets that are missed are told, and fail nothing); 1: something could not be measured."""
    arguments = _arguments()
    scale = Scale.quick() if arguments.quick else Scale()
    found: list[Figure] = []
    broken = 0
    for name in arguments.only or CHAPTERS:
        start = time.monotonic()
        try:
            figures = CHAPTERS[name](scale)
        except (AssertionError, OSError, RuntimeError) as error:
            print(f"{name}: could not be measured: {error}", file=sys.stderr)
            broken += 1
            continue
        found += figures
        print(table(figures, f"{name} ({time.monotonic() - start:.0f} s)"), flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([as_record(figure) for figure in found], indent=2) + "\n")
    if arguments.history is not None:
        with arguments.history.open("a") as file:
            file.write(json.dumps(history_record(found)) + "\n")
    missed = [figure.name for figure in found if figure.is_met is False]
    print(f"{len(found)} figures, {sum(figure.is_met is True for figure in found)} targets met, {len(missed)} missed")
    return 1 if broken else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Measure what hooks cost.")
    parser.add_argument("--quick", action="store_true", help="a few runs of everything, to see that it runs")
    parser.add_argument("--only", action="append", choices=list(CHAPTERS), help="this chapter; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--history", type=Path, metavar="FILE", help="append the ratios of this commit, one line of JSON")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
