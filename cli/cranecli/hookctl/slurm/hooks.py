"""The hooks of a slurm.conf as keys of JobLifecycleHook."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cranecli.hookctl.slurm.conf import Line, Pair
from cranecli.hookctl.slurm.leftovers import Leftover
from cranehooks.profiles import FLAG_EFFECTS, INCOMPATIBLE_FLAGS, PROFILES, PrologFlag, with_implied

POINTS = {
    "prologslurmctld": "CranectldProlog",
    "prolog": "Prolog",
    "srunprolog": "CrunProlog",
    "taskprolog": "TaskProlog",
    "taskepilog": "TaskEpilog",
    "srunepilog": "CrunEpilog",
    "epilog": "Epilog",
    "epilogslurmctld": "CranectldEpilog",
}
"""Our key for each of Slurm's, in the order of a job's life."""
TIMEOUTS = {"prologepilogtimeout": "PrologEpilogTimeout", "prologtimeout": "PrologTimeout", "epilogtimeout": "EpilogTimeout"}
_SEVERAL = frozenset({"prologslurmctld", "epilogslurmctld", "prolog", "epilog"})
_WITHOUT_GLOB = frozenset(POINTS) - {"prolog", "epilog"}
_NO_HOLD = "nohold_on_prolog_fail"
_LONGEST_TIMEOUT_S = 65533
"""What is beyond means `no value` in Slurm."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A value with the place it comes from."""

    value: str
    place: str


@dataclass(slots=True)
class HookKeys:
    """What JobLifecycleHook gets."""

    scripts: dict[str, list[Setting]] = field(default_factory=dict)
    timeouts: dict[str, Setting] = field(default_factory=dict)
    flags: Setting | None = None
    no_hold: Setting | None = None
    """The line that says that requeued jobs are not held."""


TAKEN = frozenset({*POINTS, *TIMEOUTS, "prologflags", "schedulerparameters"})
"""Keys that are translated here."""


def hook_keys(lines: Iterable[Line], directory: Path, leftovers: list[Leftover]) -> HookKeys:
    """The hooks, their times and flags. `directory` is what relative paths start from."""
    keys = HookKeys()
    for line in lines:
        for pair in line.pairs:
            if pair.name in TAKEN and pair.operator != "=":
                leftovers.append(Leftover(line.place, str(pair), f"{pair.operator} is not known here: write the whole value"))
            elif pair.name in POINTS:
                _take_script(keys, pair, line, directory, leftovers)
            elif pair.name in TIMEOUTS:
                _take_timeout(keys, pair, line, leftovers)
            elif pair.name == "prologflags":
                keys.flags = _flags(pair, line, leftovers)
            elif pair.name == "schedulerparameters":
                _take_parameters(keys, pair, line, leftovers)
    for point in ("CranectldProlog", "CranectldEpilog"):
        scripts = keys.scripts.get(point, ())
        if len(scripts) > 1:
            leftovers.append(Leftover(scripts[1].place, point, "several run one after the other here, side by side in Slurm"))
    return keys


def _take_script(keys: HookKeys, pair: Pair, line: Line, directory: Path, leftovers: list[Leftover]) -> None:
    if not pair.value or pair.value.lower() in {"none", "(null)"}:
        return
    path = str(directory / pair.value)
    if "," in path or not path.isprintable():
        why = "a comma separates paths here: rename the file" if "," in path else "not a printable path"
        leftovers.append(Leftover(line.place, str(pair), why))
        return
    if pair.name in _WITHOUT_GLOB and set(path) & set("*?["):
        leftovers.append(Leftover(line.place, str(pair), "taken, but * ? [ are wildcards here and not in Slurm"))
    setting = Setting(path, line.place)
    scripts = keys.scripts.setdefault(POINTS[pair.name], [])
    if pair.name not in _SEVERAL and scripts:
        leftovers.append(
            Leftover(scripts[0].place, f"{pair.key}={scripts[0].value}", f"{line.place} gives it again, and that counts")
        )
        scripts.clear()
    scripts.append(setting)


def _take_timeout(keys: HookKeys, pair: Pair, line: Line, leftovers: list[Leftover]) -> None:
    if pair.value.isdecimal() and 0 < int(pair.value) <= _LONGEST_TIMEOUT_S:
        keys.timeouts[TIMEOUTS[pair.name]] = Setting(pair.value, line.place)
        return
    default_s = PROFILES["slurm"].default_timeout_s
    leftovers.append(Leftover(line.place, str(pair), f"a hook without a time limit could hang for ever: {default_s:g} s apply"))


def _take_parameters(keys: HookKeys, pair: Pair, line: Line, leftovers: list[Leftover]) -> None:
    keys.no_hold = None  # a later line takes the place of an earlier one
    others: list[str] = []
    for word in filter(None, (part.strip() for part in pair.value.split(","))):
        if word.lower() == _NO_HOLD:
            keys.no_hold = Setting(word, line.place)
        else:
            others.append(word)
    if others:
        leftovers.append(Leftover(line.place, f"SchedulerParameters={','.join(others)}", "about scheduling, not about hooks"))


def _flags(pair: Pair, line: Line, leftovers: list[Leftover]) -> Setting | None:
    by_word = {flag.value.lower(): flag for flag in PrologFlag}
    flags: set[PrologFlag] = set()
    for word in filter(None, (part.strip() for part in pair.value.split(","))):
        flag = by_word.get(word.lower())
        if flag is None:
            leftovers.append(Leftover(line.place, f"PrologFlags={word}", f"no such flag: {', '.join(sorted(PrologFlag))}"))
        else:
            flags.add(flag)
            if flag is PrologFlag.X11:
                leftovers.append(Leftover(line.place, f"PrologFlags={flag}", FLAG_EFFECTS[flag]))
    for one, other, why in INCOMPATIBLE_FLAGS:
        if {one, other} <= with_implied(frozenset(flags)):
            # Slurm gives up Serial in the one case, and does not start in the other.
            dropped = other if other is PrologFlag.SERIAL else one
            flags.discard(dropped)
            leftovers.append(Leftover(line.place, f"PrologFlags={dropped}", f"{one} and {other} exclude each other: {why}"))
    return Setting(",".join(sorted(flags)), line.place) if flags else None
