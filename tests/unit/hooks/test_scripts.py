"""Which files a pattern means, and which of them may run."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from cranehooks.execution import scripts
from cranehooks.execution.scripts import UnsafeScriptError, check, planned, problem_of, resolve
from cranehooks.plan import PatternMatch, Plan, PlanFailure
from cranehooks.profiles import PROFILES, overridden
from cranehooks.testing.faulty_scripts import HookScripts


def refusal(path: str, *, trusted_owner: bool = True) -> UnsafeScriptError:
    with pytest.raises(UnsafeScriptError) as caught:
        check(path, trusted_owner=trusted_owner)
    return caught.value


def test_a_literal_path_means_itself_even_when_it_is_missing() -> None:
    assert resolve(PROFILES["slurm"], ["/nowhere/at-all"]) == [PatternMatch("/nowhere/at-all", ("/nowhere/at-all",))]


@pytest.mark.parametrize("profile", PROFILES)
def test_globs_mean_what_matches(files: HookScripts, profile: str) -> None:
    for name in ("10-a.sh", "20-b.sh", "20-c.txt", ".hidden.sh"):
        files.ok(name)
    (files.directory / "30-d.sh").mkdir()
    top = str(files.directory)
    found = resolve(PROFILES[profile], [f"{top}/*.sh", f"{top}/2?-*", f"{top}/[13]0-*", f"{top}/*.py"])
    fails = profile == "slurm"
    told = () if fails else ("30-d.sh (directory)",)
    assert [([Path(path).name for path in sorted(match.matches)], match.passed_over) for match in found] == [
        (["10-a.sh", "20-b.sh", *(["30-d.sh"] if fails else [])], told),
        (["20-b.sh", "20-c.txt"], ()),
        (["10-a.sh", *(["30-d.sh"] if fails else [])], told),
        ([], ()),
    ]


def test_patterns_are_absolute() -> None:
    with pytest.raises(ValueError, match=r"must be absolute, got 'prolog\.d/\*'"):
        resolve(PROFILES["slurm"], ["prolog.d/*"])


def test_a_good_script_is_hashed(files: HookScripts) -> None:
    path = files.ok()
    checked = check(path)
    assert checked.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert checked.interpreter == "/bin/sh"


@pytest.mark.parametrize("trusted_owner", [True, False])
def test_what_cannot_run_says_why(files: HookScripts, trusted_owner: bool) -> None:
    missing = refusal(str(files.directory / "missing"), trusted_owner=trusted_owner)
    assert (missing.errno, missing.reason) == (errno.ENOENT, "does not exist")
    locked = files.not_executable()
    not_executable = refusal(locked, trusted_owner=trusted_owner)
    assert (not_executable.errno, not_executable.reason) == (errno.EACCES, f"is not executable; chmod a+x {locked}")
    assert refusal(str(files.directory), trusted_owner=trusted_owner).errno == errno.EISDIR
    fifo = files.directory / "fifo"
    os.mkfifo(fifo, 0o755)
    assert refusal(str(fifo), trusted_owner=trusted_owner).reason == "is not a regular file"
    assert refusal(f"{locked}/below", trusted_owner=trusted_owner).errno == errno.ENOTDIR


def test_a_script_that_others_may_write_is_refused_with_the_remedy(files: HookScripts) -> None:
    path = files.writable_by_others()
    unsafe = refusal(path)
    assert unsafe.errno == 0
    assert unsafe.reason == f"is writable by group or others (mode 0777); chmod go-w {path}"
    assert check(path, trusted_owner=False).sha256


def test_a_directory_above_that_others_may_write_is_refused(files: HookScripts) -> None:
    path = files.ok()
    files.directory.chmod(0o775)
    where = f"is reached by way of {files.directory}, which is writable by group or others (mode 0775)"
    assert refusal(path).reason == f"{where}; chmod go-w {files.directory}"


def test_what_keeps_an_entry_from_running_names_its_path(files: HookScripts) -> None:
    profile = PROFILES["crane-requeue"]
    missing, locked = str(files.directory / "missing"), files.not_executable()
    assert problem_of(profile, missing) == f"{missing} does not exist"
    assert problem_of(profile, locked) == f"{locked} is not executable; chmod a+x {locked}"
    assert problem_of(profile, files.ok()) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
def test_a_script_of_somebody_else_is_refused(files: HookScripts) -> None:
    path = files.ok()
    os.chown(path, 12345, 0)
    assert refusal(path).reason == f"belongs to uid 12345, expected root or uid 0; chown root {path}"
    assert check(path, trusted_owner=False).sha256


def test_only_roots_sticky_directories_pass(files: HookScripts) -> None:
    path = files.ok()
    files.directory.chmod(0o1777)
    if os.geteuid() == 0:
        assert check(path).sha256
    else:
        assert "writable by group or others" in refusal(path).reason


def test_links_are_followed_and_everything_on_the_way_is_checked(files: HookScripts, tmp_path: Path) -> None:
    path = files.ok()
    (tmp_path / "dir-link").symlink_to(files.directory)
    link = tmp_path / "link"
    link.symlink_to("dir-link/../hooks.d/ok")
    assert check(str(link)).sha256 == check(path).sha256
    files.directory.chmod(0o777)
    assert f"chmod go-w {files.directory}" in refusal(str(link)).reason


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert refusal(str(tmp_path / "a")).errno == errno.ELOOP


def test_interpreter_lines() -> None:
    assert scripts._interpreter(b"#! /usr/bin/env  python3\nx") == "/usr/bin/env"
    assert scripts._interpreter(b"#!\t/bin/sh\t-e\n") == "/bin/sh"
    assert scripts._interpreter(b"#!/bin/sh\r\nexit 0\r\n") == "/bin/sh\r"
    assert scripts._interpreter(b"#!") == ""
    assert scripts._interpreter(b"exit 0\n") == ""


def test_slurm_takes_whatever_a_pattern_matches_in_reverse_byte_order(files: HookScripts) -> None:
    names = ["00-x", "10-a", "2-b", "B.sh", "Z", "_x", "a.sh", "b.sh~", "z", "é"]
    for name in (*names, "readme.txt", ".hidden"):
        files.ok(name)
    (files.directory / "readme.txt").chmod(0o644)
    (files.directory / "sub").mkdir()
    plan = planned(PROFILES["slurm"], [f"{files.directory}/*"])
    assert isinstance(plan, Plan)
    found = [Path(path).name for path in plan.scripts]
    assert found == ["é", "z", "sub", "readme.txt", "b.sh~", "a.sh", "_x", "Z", "B.sh", "2-b", "10-a", "00-x"]
    # The first two run, and the hook fails at the directory.
    assert [refusal(plan.scripts[number]).errno for number in (2, 3)] == [errno.EISDIR, errno.EACCES]
    assert plan.notes == ()


def test_names_that_are_no_utf8_are_scripts_like_others(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/\xff-raw"
    Path(os.fsdecode(raw)).write_text("#!/bin/sh\n")
    Path(os.fsdecode(raw)).chmod(0o755)
    (tmp_path / "é").touch(0o755)
    for profile, order in (("slurm", [b"\xff-raw", "é".encode()]), ("sunk", ["é".encode(), b"\xff-raw"])):
        plan = planned(PROFILES[profile], [f"{tmp_path}/*"])
        assert isinstance(plan, Plan)
        assert [os.fsencode(path).rpartition(b"/")[2] for path in plan.scripts] == order
    assert check(os.fsdecode(raw)).sha256


RUN_PARTS = """\
10-mount            10-mount
20-gpu.sh           20-gpu.sh
9_last              9_last
Upper               Upper
.hidden.sh          name
20-gpu.sh~          name
30-net.rpmsave      name
notes.txt           name
readme              not executable
sub                 directory
"""
"""A name in the directory, and where it is: planned, or passed over and why."""


@pytest.fixture
def parts(files: HookScripts) -> HookScripts:
    for line in RUN_PARTS.splitlines():
        name, fate = line.split(maxsplit=1)
        if fate == "directory":
            (files.directory / name).mkdir()
        else:
            files.ok(name)
            if fate == "not executable":
                (files.directory / name).chmod(0o644)
    return files


def test_a_directory_under_sunk(parts: HookScripts) -> None:
    top = str(parts.directory)
    plan = planned(PROFILES["sunk"], [top])
    assert isinstance(plan, Plan)
    rows = [line.split(maxsplit=1) for line in RUN_PARTS.splitlines()]
    assert plan.scripts == tuple(f"{top}/{name}" for name, fate in rows if name == fate)
    assert plan.notes == (f"passed over in {top}: {', '.join(f'{name} ({fate})' for name, fate in rows if name != fate)}",)


@pytest.mark.parametrize("profile", ["crane-requeue", "crane-fail", "slurm"])
def test_a_directory_under_another_profile_is_no_script(parts: HookScripts, profile: str) -> None:
    top = str(parts.directory)
    assert planned(PROFILES[profile], [top]) == Plan((top,))
    assert "is a directory" in refusal(top).reason


def test_an_empty_directory_is_an_empty_pattern(tmp_path: Path) -> None:
    assert planned(PROFILES["sunk"], [str(tmp_path)]) == Plan(())
    strict = overridden(PROFILES["sunk"], {"EmptyPattern": "fails"})
    assert isinstance(planned(strict, [str(tmp_path)]), PlanFailure)


def test_a_missing_directory_fails_when_it_is_run(tmp_path: Path) -> None:
    assert planned(PROFILES["sunk"], [f"{tmp_path}/prolog.d"]) == Plan((f"{tmp_path}/prolog.d",))


def test_a_link_that_leads_nowhere_is_told_when_it_is_run(tmp_path: Path) -> None:
    (tmp_path / "10-broken").symlink_to("/nowhere/at-all")
    assert planned(PROFILES["sunk"], [str(tmp_path)]) == Plan((f"{tmp_path}/10-broken",))
