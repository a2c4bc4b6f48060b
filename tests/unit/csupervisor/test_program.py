"""Looking up a program as a shell does."""

import errno
from pathlib import Path

import pytest

from cranehooks.execution.child import Stage
from cranehooks.execution.process import SpawnError
from csupervisor.program import NOT_EXECUTABLE, NOT_FOUND, UnrunnableError, find_program, unrunnable


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name, mode in (("tool", 0o755), ("text", 0o644)):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(mode)
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", ["tool", "./tool", "folder/../tool"])
def test_found(here: Path, name: str) -> None:
    found = find_program(name, {"PATH": f"/nonexistent:{here}"}, str(here))
    assert Path(found).resolve() == here / "tool"


def test_an_empty_entry_is_the_working_directory(here: Path) -> None:
    assert find_program("tool", {"PATH": "/bin:"}, str(here)) == str(here / "tool")


def test_without_a_path_the_systems_default_counts(here: Path) -> None:
    assert find_program("sh", {}, str(here)) in ("/bin/sh", "/usr/bin/sh")


def test_an_entry_that_may_run_wins_over_one_that_may_not(here: Path) -> None:
    (here / "folder" / "text").write_text("#!/bin/sh\n")
    (here / "folder" / "text").chmod(0o755)
    assert find_program("text", {"PATH": f"{here}:{here}/folder"}, "/") == str(here / "folder" / "text")


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("missing", NOT_FOUND),
        ("", NOT_FOUND),
        ("./missing", NOT_FOUND),
        ("tool/below", NOT_FOUND),
        ("./a\0b", NOT_FOUND),
        ("text", NOT_EXECUTABLE),
        ("./text", NOT_EXECUTABLE),
        ("./folder", NOT_EXECUTABLE),
        ("folder", NOT_EXECUTABLE),
    ],
)
def test_not_found_and_not_executable(here: Path, name: str, status: object) -> None:
    with pytest.raises(UnrunnableError) as raised:
        find_program(name, {"PATH": str(here)}, str(here))
    assert raised.value.exit == status


@pytest.mark.parametrize(
    ("stage", "number", "status", "words"),
    [
        (Stage.EXEC, errno.ENOENT, NOT_FOUND, "interpreter"),
        (Stage.EXEC, errno.ENOEXEC, NOT_EXECUTABLE, "no #! line"),
        (Stage.EXEC, errno.E2BIG, NOT_EXECUTABLE, "Argument list too long"),
        (Stage.CWD, errno.ENOENT, NOT_EXECUTABLE, "working directory"),
    ],
)
def test_what_a_failed_spawn_means(stage: Stage, number: int, status: object, words: str) -> None:
    error = unrunnable(SpawnError("/x", stage, number), "x")
    assert error.exit == status
    assert words in str(error)
