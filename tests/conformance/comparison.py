"""The comparisons, and what is found by running one under both systems: rows of two values each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.conformance.stage import Stage
from tests.conformance.system import Configuration

Observe = Callable[[Stage], Mapping[str, str]]

UNSET = "-"
"""Of a variable that one side does not have."""

PLAIN = Configuration("plain")
IMPATIENT = Configuration("impatient", hold_on_prolog_fail=False, prolog_epilog_timeout_s=2)
AT_ALLOCATION = Configuration("at-allocation", flags="Alloc")
TWO_LINES = Configuration("two-lines", lines=("{point}.d/*", "{point}-last"))
ONE_PATH = Configuration("one-path", lines=("{point}.d/50-main",))
WITHOUT_HOLD = Configuration("without-hold", flags="NoHold")
IN_TURN = Configuration("in-turn", flags="Serial")
CONFIGURATIONS = (PLAIN, IMPATIENT, AT_ALLOCATION, WITHOUT_HOLD, IN_TURN, TWO_LINES, ONE_PATH)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs the same jobs under both systems."""

    name: str
    configuration: Configuration
    observe: Observe


@dataclass(frozen=True, slots=True)
class Row:
    """One fact that both systems tell."""

    name: str
    slurm: str
    here: str

    @property
    def is_same(self) -> bool:
        return self.slurm == self.here


COMPARISONS: list[Comparison] = []


def comparison(name: str, configuration: Configuration = PLAIN) -> Callable[[Observe], Observe]:
    """Registers a function that observes one system; its rows are `name/key`."""

    def register(observe: Observe) -> Observe:
        COMPARISONS.append(Comparison(name, configuration, observe))
        return observe

    return register


def rows_of(name: str, slurm: Mapping[str, str], here: Mapping[str, str]) -> list[Row]:
    """Keys in the order of Slurm's, then what only we have."""
    keys = [*slurm, *(key for key in here if key not in slurm)]
    return [Row(f"{name}/{key}", slurm.get(key, UNSET), here.get(key, UNSET)) for key in keys]
