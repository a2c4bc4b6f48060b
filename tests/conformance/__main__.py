"""Runs the same hooks and jobs under Slurm and under the profile `slurm`, and compares what happens; `make conformance` runs this."""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from tests.conformance.comparison import COMPARISONS, CONFIGURATIONS, Comparison, Row, rows_of
from tests.conformance.comparisons import endings, environment, failures, flags, order, tasks
from tests.conformance.crane_system import CraneSystem
from tests.conformance.differences import PAGE, Difference, read, reason_for
from tests.conformance.slurm_system import SlurmSystem
from tests.conformance.stage import Stage
from tests.conformance.system import Configuration, System
from tests.support import slurm_daemons

CHAPTERS = (order, flags, environment, failures, tasks, endings)
"""Modules that register comparisons."""
_WIDEST_NAME = 62
_WIDEST_VALUE = 60


def main() -> int:
    """0: nothing differs but what is documented (or nothing was compared, and that is allowed); 1: something does."""
    arguments = _arguments()
    if arguments.list:
        print(*(comparison.name for comparison in COMPARISONS), sep="\n")
        return 0
    chosen = [one for one in COMPARISONS if any(fnmatchcase(one.name, pattern) for pattern in arguments.only or ["*"])]
    if (reason := _obstacle()) is not None:
        print(f"conformance: skipped: {reason}")
        return 1 if arguments.required else 0
    differences = read(PAGE.read_text(encoding="utf-8"))
    print(f"conformance: {slurm_daemons.version()} and the profile slurm, {len(chosen)} comparisons", flush=True)
    # As an interrupt does: the clusters are stopped and removed on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    started = time.monotonic()
    counts: Counter[str] = Counter()
    for row in _compare(chosen):
        counts[_report(row, differences, quiet=arguments.quiet)] += 1
    _summarise(counts, differences, time.monotonic() - started, complete=arguments.only is None)
    return 1 if counts["DIFFERS"] else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    parser.add_argument("--required", action="store_true", help="fail where Slurm is not installed, in place of a visible skip")
    parser.add_argument("--only", action="append", metavar="PATTERN", help="compare only these; may be repeated")
    parser.add_argument("--list", action="store_true", help="name the comparisons and exit")
    parser.add_argument("--quiet", action="store_true", help="print only rows that differ")
    return parser.parse_args()


def _obstacle() -> str | None:
    """Why nothing can be compared here."""
    if missing := slurm_daemons.missing_programs():
        return f"Slurm is not installed ({', '.join(missing)}); on Debian: apt-get install {slurm_daemons.PACKAGES}"
    if os.geteuid() != 0:
        return "needs root, as slurmd does"
    return None


def _compare(chosen: Sequence[Comparison]) -> Iterator[Row]:
    """The rows, as soon as there are some; one pair of clusters at a time."""
    for configuration in CONFIGURATIONS:
        comparisons = [one for one in chosen if one.configuration == configuration]
        if comparisons:
            with _pair(configuration) as (slurm, here), ThreadPoolExecutor(2) as threads:
                for one in comparisons:
                    # Side by side: each system has its own directory.
                    observed = list(threads.map(lambda system, one=one: _observe(one, system), (slurm, here)))
                    yield from rows_of(one.name, *observed)


@contextmanager
def _pair(configuration: Configuration) -> Iterator[tuple[System, System]]:
    """Both systems, running; nothing of them is left afterwards."""
    with ExitStack() as stack:
        # Below /tmp in any case: munged and the owners of hooks are particular about the directories above.
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="conform-", dir="/tmp")))
        scratch.chmod(0o755)
        systems: list[System] = [SlurmSystem(scratch / "slurm", configuration), CraneSystem(scratch / "here", configuration)]
        for system in systems:
            # The scripts of the hooks come before the daemons, which want to see them.
            Stage(system, "start")
            stack.enter_context(system)
        yield systems[0], systems[1]


def _observe(one: Comparison, system: System) -> Mapping[str, str]:
    """One side; what goes wrong is a row too, so that the other comparisons are made."""
    stage = Stage(system, one.name.replace(" ", "-"))
    try:
        return one.observe(stage)
    except AssertionError as error:
        return {"could not be observed": f"{system.title}: {error}"}
    finally:
        stage.clear()


def _report(row: Row, differences: Sequence[Difference], *, quiet: bool) -> str:
    """Prints the row; returns its verdict."""
    if row.is_same:
        if not quiet:
            print(f"{row.name:<{_WIDEST_NAME}}  same  {_shortened(row.slurm)}", flush=True)
        return "same"
    anchor = reason_for(row, differences)
    verdict = "DIFFERS" if anchor is None else f"differs (documented: {anchor})"
    print(f"{row.name:<{_WIDEST_NAME}}  {verdict}  Slurm: {row.slurm}  here: {row.here}", flush=True)
    return "DIFFERS" if anchor is None else "documented"


def _summarise(counts: Mapping[str, int], differences: Sequence[Difference], seconds: float, *, complete: bool) -> None:
    unseen = [difference for difference in differences if not difference.was_seen]
    if complete:
        for difference in unseen:
            print(f"note: {PAGE.name}#{difference.anchor} tells of {difference.row}, which did not differ so in this run")
    print(
        f"conformance: {counts['same']} same, {counts['documented']} differ as documented, "
        f"{counts['DIFFERS']} differ without a documented reason; {seconds:.0f} s"
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _WIDEST_VALUE else f"{text[: _WIDEST_VALUE - 1]}…"


if __name__ == "__main__":
    sys.exit(main())
