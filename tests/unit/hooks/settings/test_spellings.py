"""Every spelling of the hooks' section that guides and sites use, each with what it means; and what is said of two spellings at once."""

import itertools
from pathlib import Path

import pytest

from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookSettings
from cranehooks.settings import load
from cranehooks.settings.document import OLDER_HOOK_KEYS
from cranekit.yaml_lines import SettingsError

MINIMAL = """\
ClusterName: test
Nodes:
  - {name: cn01, address: "unix:/run/crane/cn01.sock"}
"""
SECTIONS = ["JobLifecycleHook", "JobLogHook"]

KEYS = """\
CranectldProlog  CranectldProlog
PrologCranectld  CranectldProlog
PrologCtld       CranectldProlog
CraneCtldProlog  CranectldProlog
PrologCraneCtld  CranectldProlog
Prolog           Prolog
CrunProlog       CrunProlog
TaskProlog       TaskProlog
TaskEpilog       TaskEpilog
CrunEpilog       CrunEpilog
Epilog           Epilog
CranectldEpilog  CranectldEpilog
EpilogCranectld  CranectldEpilog
EpilogCtld       CranectldEpilog
CraneCtldEpilog  CranectldEpilog
EpilogCraneCtld  CranectldEpilog
"""
"""A key as written, and the point it means."""

VALUES = """\
/p                        /p
p                         DIR/p
"/p,/q"                   /p /q
/p, /q ,r                 /p /q DIR/r
[/p, q]                   /p DIR/q
["/p,/q", r]              /p /q DIR/r
/etc/prolog.d/*           /etc/prolog.d/*
prolog.d/*.sh             DIR/prolog.d/*.sh
"[0-9]*.sh,z?"            DIR/[0-9]*.sh DIR/z?
../shared/p               DIR/../shared/p
"/with blank/p"           /with blank/p
"""
"""A value as written, and the entries it means; DIR is the directory of the file. The value ends before two blanks."""

OTHERS = """\
PrologTimeout: 30                          timeouts_s PROLOG 30
PrologTimeout: 1.5                         timeouts_s PROLOG 1.5
EpilogTimeout: 30                          timeouts_s EPILOG 30
PrologEpilogTimeout: 120                   timeouts_s EPILOG 120
MaxOutputSize: 4096                        output_limit_bytes 4096
MaxOutputSize: 64K                         output_limit_bytes 65536
MaxOutputSize: 1M                          output_limit_bytes 1048576
PrologFlags: Alloc                         flags Alloc
PrologFlags: alloc,SERIAL                  flags Alloc Serial
PrologFlags: "aLLoC , nohold"              flags Alloc NoHold
PrologFlags: [Serial, alloc]               flags Alloc Serial
PrologFlags: ForceRequeueOnFail            flags Alloc ForceRequeueOnFail
PrologFlags: ""                            flags
"""
"""A line, and what comes of it."""


def settings(directory: Path, text: str) -> HookSettings:
    path = directory / "config.yaml"
    path.write_text(MINIMAL + text)
    return load(path).hook_settings()


def problems(directory: Path, text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        settings(directory, text)
    return [str(problem).removeprefix(f"{directory}/config.yaml:") for problem in caught.value.problems]


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize(("written", "point"), [line.split() for line in KEYS.splitlines()])
def test_keys_of_hooks(tmp_path: Path, section: str, written: str, point: str) -> None:
    assert settings(tmp_path, f"{section}:\n  {written}: /p\n").patterns == {HookPoint(point): ("/p",)}


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize(("written", "entries"), [line.split("  ", 1) for line in VALUES.splitlines()])
def test_values_of_hooks(tmp_path: Path, section: str, written: str, entries: str) -> None:
    found = settings(tmp_path, f"{section}:\n  Epilog: {written}\n").patterns[HookPoint.EPILOG]
    expected = entries.strip().replace("DIR", str(tmp_path))
    assert found == (tuple(expected.split()) if "blank" not in written else (expected,))


@pytest.mark.parametrize(
    ("written", "entries"), [("''", ()), ("[]", ()), ("','", ()), ("'/p,,/q,'", ("/p", "/q")), ("[/p, '']", ("/p",))]
)
def test_empty_entries_are_none(tmp_path: Path, written: str, entries: tuple[str, ...]) -> None:
    assert settings(tmp_path, f"JobLogHook:\n  Epilog: {written}\n").patterns.get(HookPoint.EPILOG, ()) == entries


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize(("line", "result"), [line.split("  ", 1) for line in OTHERS.splitlines()])
def test_other_keys(tmp_path: Path, section: str, line: str, result: str) -> None:
    hooks = settings(tmp_path, f"{section}:\n  {line}\n")
    name, *expected = result.split()
    match name:
        case "timeouts_s":
            assert hooks.timeouts_s[HookPoint[expected[0]]] == float(expected[1])
        case "output_limit_bytes":
            assert hooks.output_limit_bytes == int(expected[0])
        case _:
            assert hooks.flags == set(expected)


def test_every_other_spelling_is_in_the_table() -> None:
    assert OLDER_HOOK_KEYS.keys() <= {line.split()[0] for line in KEYS.splitlines()}


BY_POINT = itertools.groupby(
    sorted((line.split()[::-1] for line in KEYS.splitlines()), key=lambda row: row[0]), lambda row: row[0]
)
PAIRS = [pair for _, rows in BY_POINT for pair in itertools.permutations([written for _, written in rows], 2)]


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_two_spellings_of_one_key_are_an_error_that_names_both_and_their_places(
    tmp_path: Path, section: str, first: str, second: str
) -> None:
    text = f"{section}:\n  {first}: /p\n  PrologTimeout: 5\n  {second}: /p\n"
    assert problems(tmp_path, text) == [
        f"7:3: {second} and {first} (line 5, column 3) are two spellings of one key: keep one of them"
    ]


@pytest.mark.parametrize(("first", "second"), [SECTIONS, SECTIONS[::-1]])
def test_both_sections_at_once_are_an_error_that_names_both(tmp_path: Path, first: str, second: str) -> None:
    assert problems(tmp_path, f"{first}: {{Prolog: /p}}\n{second}:\n  Epilog: /p\n") == [
        f"5:1: {second} and {first} (line 4, column 1) are two spellings of one key: keep one of them"
    ]


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("key", ["Prolog", "PrologCtld", "PrologTimeout"])
def test_one_spelling_twice_is_an_error_too(tmp_path: Path, section: str, key: str) -> None:
    value = 5 if key == "PrologTimeout" else "/p"
    (problem,) = problems(tmp_path, f"{section}:\n  {key}: {value}\n  {key}: {value}\n")
    assert problem.startswith("6:3: ")
    assert key in problem
    assert "5" in problem.removeprefix("6:3: ")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("Prolog: {a: b}", "5:11: Prolog: "),
        ("Prolog: 5", "5:11: Prolog: "),
        ("Prolog: true", "5:11: Prolog: "),
        ("prolog: /p", "5:3: unknown key prolog: did you mean Prolog?"),
        ("PrologSlurmctld: /p", "5:3: unknown key PrologSlurmctld"),
        ("SrunProlog: /p", "5:3: unknown key SrunProlog: did you mean CrunProlog?"),
        ("PrologFlags: Alloc,Frob", "5:16: PrologFlags: unknown flag Frob: the flags are "),
        ("PrologFlags: {Alloc: true}", "5:16: PrologFlags: "),
        ("MaxOutputSize: lots", "5:18: MaxOutputSize: "),
        ("PrologTimeout: 0", "5:18: PrologTimeout: must be more than 0, not 0"),
        ("EpilogTimeout: one minute", "5:18: EpilogTimeout: expected a number, not 'one minute'"),
        ("PrologEpilogTimeout: -5", "5:24: PrologEpilogTimeout: must be more than 0, not -5"),
    ],
)
@pytest.mark.parametrize("section", SECTIONS)
def test_what_is_no_value_is_said_with_its_place(tmp_path: Path, section: str, line: str, problem: str) -> None:
    (found,) = problems(tmp_path, f"{section}:\n  {line}\n")
    assert found.startswith(problem)


def test_the_examples_of_both_guides_load(tmp_path: Path) -> None:
    first = """\
JobLogHook:
  Prolog: prolog1.sh,prolog2.sh
  PrologTimeout: 60
  # PrologFlags: Alloc
  Epilog: epilog1.sh,epilog2.sh
  EpilogTimeout: 60
  PrologEpilogTimeout: 120
  PrologCranectld: prologctld.sh
  EpilogCranectld: epilogctld.sh
  CrunProlog: srun_prolog.sh
  CrunEpilog: srun_epilog.sh
  TaskProlog: task_prolog.sh
  TaskEpilog: task_epilog.sh
"""
    current = """\
Profile: crane-fail
JobLifecycleHook:
  Prolog: /path/to/prolog.sh
  PrologTimeout: 60
  PrologFlags: Serial
  Epilog: /path/to/epilog.sh
  EpilogTimeout: 60
  PrologEpilogTimeout: 120
  CranectldProlog: /path/to/cranectld_prolog.sh
  CranectldEpilog: /path/to/cranectld_epilog.sh
"""
    hooks = settings(tmp_path, first)
    assert len(hooks.patterns) == 8
    assert hooks.patterns[HookPoint.PROLOG] == (f"{tmp_path}/prolog1.sh", f"{tmp_path}/prolog2.sh")
    assert (hooks.timeouts_s[HookPoint.PROLOG], hooks.timeouts_s[HookPoint.CRUN_PROLOG]) == (120, None)
    assert settings(tmp_path, current).patterns[HookPoint.CRANECTLD_EPILOG] == ("/path/to/cranectld_epilog.sh",)
