"""What dead supervisors leave on disk."""

from pathlib import Path

from structlog.testing import capture_logs

from craned.steps.files import StepFiles
from cranehooks.model.ids import Attempt, AttemptKey, JobId

FIRST, SECOND = AttemptKey(JobId(42), Attempt(1)), AttemptKey(JobId(42), Attempt(2))


def leave(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).mkdir(parents=True)
        (directory / name / "script").write_text("#!/bin/sh\n")


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_an_attempts_directory_is_removed_with_all_that_is_in_it(tmp_path: Path) -> None:
    leave(tmp_path, "job_42.1", "job_42.2")
    files = StepFiles(tmp_path)
    files.remove(FIRST)
    files.remove(FIRST)
    assert names(tmp_path) == {"job_42.2"}


def test_at_the_start_known_attempts_and_what_is_not_ours_stay(tmp_path: Path) -> None:
    leave(tmp_path, "job_42.1", "job_42.2", "job_7.1", "job_7", "notes")
    StepFiles(tmp_path).keep_only([SECOND])
    assert names(tmp_path) == {"job_42.2", "job_7", "notes"}


def test_what_cannot_be_removed_is_told(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "job_42.1").symlink_to("elsewhere", target_is_directory=True)
    with capture_logs() as logs:
        StepFiles(tmp_path).remove(FIRST)
        StepFiles(tmp_path / "missing").keep_only([])
    assert [entry["event"] for entry in logs] == ["step_files_left", "step_files_unread"]
