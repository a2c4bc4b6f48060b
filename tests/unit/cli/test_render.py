"""Golden tests of what people and programs read, from recorded answers of the controller."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cranecli.render import details, documents, explanation, records, tables
from cranecli.render.style import PLAIN, Style, Tone, style_of
from cranecli.render.table import Column, table
from cranecli.render.timeline import timeline
from cranecli.render.words import COLUMNS, duration, last_lines, memory, offset, printable, rfc3339, sentence, shortened
from cranehooks.model.limits import Usage

FIXTURES = Path(__file__).with_name("fixtures")
NOW = 1_795_000_000.0


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def answer(name: str) -> dict[str, Any]:  # recorded JSON
    loaded: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text())
    return loaded


def requeued_job() -> records.JobRecord:
    return records.job_record(answer("requeued_job")["job"])


def pages() -> dict[str, list[str]]:
    """Every page that is compared with a golden file, by the file's name."""
    job = requeued_job()
    nodes = [records.node_record(node) for node in answer("nodes")["nodes"]]
    drained = answer("drained_node")
    failed = [records.hook_run(run) for run in drained["failed_runs"]]
    events = [records.event_record(event) for event in drained["events"]]
    held = records.job_record(answer("held_job")["job"])
    breakers = [records.breaker_record(item) for item in answer("breakers")["breakers"]]
    return {
        "job": details.job_details(job, PLAIN),
        "jobs": tables.jobs_table([job, held], NOW, PLAIN),
        "explain_job": explanation.explain_job(job, nodes, [], PLAIN, NOW),
        "explain_held_job": explanation.explain_job(held, [], breakers, PLAIN, NOW),
        "nodes": tables.nodes_table(nodes, PLAIN),
        "node": details.node_details(nodes[0], failed, events, PLAIN),
        "explain_node": explanation.explain_node(nodes[0], failed, events, PLAIN),
        "breakers": tables.breakers_table(breakers, PLAIN),
        "events": [tables.event_line(event, PLAIN) for event in events],
    }


@pytest.mark.parametrize("name", sorted(pages()))
def test_page_reads_as_the_golden_file(name: str) -> None:
    golden = (FIXTURES / f"{name}.txt").read_text()
    assert "\n".join(pages()[name]) + "\n" == golden


@pytest.mark.parametrize("name", ["job", "explain_job", "explain_held_job", "explain_node"])
def test_stories_fit_in_a_hundred_columns(name: str) -> None:
    assert max(len(line) for line in pages()[name]) <= COLUMNS


def test_what_a_job_used_is_told_by_node_or_in_all() -> None:
    def told(nodes: int) -> list[str]:
        used = {f"cn{number}": Usage(1.5, 1 << 20, 0) for number in range(nodes)}
        return [line.strip() for line in details.job_details(replace(requeued_job(), usage=used), PLAIN) if "used " in line]

    assert told(0) == []
    assert told(1) == ["used 1.5 s of CPU, at most 1.0 MiB of memory"]
    assert told(2) == [f"used on cn{number}: 1.5 s of CPU, at most 1.0 MiB of memory" for number in range(2)]
    assert told(100) == ["used 150.0 s of CPU, at most 1.0 MiB of memory on 100 nodes"]


def test_programs_are_told_what_was_held_and_used() -> None:
    document = documents.job_document(requeued_job())
    assert document["usage"] == [{"node": "cn02", "cpu_s": 0.0502, "memory_peak_bytes": 64 << 20, "oom_kills": 1}]
    assert document["steps"][0]["usage"][0]["cpu_s"] == 0.0441
    assert document["shares"][0]["devices"] == {"gpu": [0, 2]}


def test_a_time_that_is_past_is_no_reason_to_wait() -> None:
    def advice(not_before: float | None) -> str:
        job = replace(requeued_job(), state="Pending", not_before=not_before)
        return "\n".join(explanation.explain_job(job, [], [], PLAIN, NOW))

    assert "not before" in advice(NOW + 60)
    for past in (NOW - 60, None):
        assert "not before" not in advice(past)
        assert "as soon as nodes are free" in advice(past)


def test_colour_changes_nothing_but_colour() -> None:
    import re

    job = requeued_job()
    coloured = "\n".join(details.job_details(job, Style(coloured=True)))
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == "\n".join(details.job_details(job, PLAIN))


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert style_of(Terminal()).coloured  # type: ignore[arg-type]  # only isatty is asked
    monkeypatch.setenv("NO_COLOR", "1")
    assert not style_of(Terminal()).coloured  # type: ignore[arg-type]  # as above


def test_output_of_scripts_cannot_steer_the_terminal() -> None:
    raw = answer("requeued_job")["job"]
    raw["runs"][1]["scripts"][1]["output"] = "\x1b]0;owned\x07\x1b[2Jbye\n"
    raw["spec"]["name"] = "a\x1b[31mb"
    page = "\n".join(details.job_details(records.job_record(raw), PLAIN))
    assert "\x1b" not in page
    assert "\\x1b[2Jbye" in page


def test_many_alike_runs_become_one_row() -> None:
    raw = answer("requeued_job")["job"]
    task = next(run for run in raw["runs"] if run["point"] == "HOOK_POINT_TASK_PROLOG")
    raw["runs"] = [{**task, "task_id": number, "node": f"cn{number % 2 + 1:02d}"} for number in range(8)]
    raw["history"] = []
    lines = timeline(records.job_record(raw), PLAIN)
    assert len([line for line in lines if "TaskProlog" in line]) == 1
    assert "TaskProlog batch x8" in lines[-1]
    assert "cn[01-02]" in lines[-1]


def test_a_failing_run_is_never_folded() -> None:
    raw = answer("requeued_job")["job"]
    failing = raw["runs"][1]
    raw["runs"] = [{**failing, "node": f"cn{number:02d}"} for number in range(6)]
    raw["history"] = []
    lines = timeline(records.job_record(raw), PLAIN)
    assert len([line for line in lines if line.startswith("!")]) == 6


def test_event_of_a_run_names_script_outcome_and_last_line() -> None:
    drained = answer("drained_node")
    event = records.event_record(
        {**drained["events"][0], "kind": "hook", "text": "Prolog exit 1", "run": drained["failed_runs"][0]}
    )
    assert tables.event_line(event, PLAIN).endswith(
        "Prolog on cn01 50-node-health.sh exit 1, 22 ms: cn01: marker unhealthy-cn01 found, job refused"
    )
    assert "2.1 " in tables.event_line(event, PLAIN)


def test_points_without_scripts_are_not_told() -> None:
    raw = answer("requeued_job")["job"]
    raw["runs"] = [{**run, "scripts": []} for run in raw["runs"] if run["point"] == "HOOK_POINT_EPILOG"]
    raw["history"] = []
    assert timeline(records.job_record(raw), PLAIN) == []


def test_document_is_plain_json_with_stable_words() -> None:
    document = documents.job_document(requeued_job(), complete=True)
    again = json.loads(json.dumps(document))
    assert again["job_id"] == 2
    assert again["state"] == "completed"
    assert again["submitted_at"] == "2026-11-21T09:40:11.000000Z"
    failing = again["runs"][1]
    assert failing["point"] == "Prolog"
    assert failing["outcome"] == {"kind": "exit", "code": 1, "detail": "", "text": "exit 1"}
    assert [script["outcome"]["kind"] for script in failing["scripts"]] == ["ok", "exit"]
    raw = answer("requeued_job")["job"]
    raw["state"] = "JOB_STATE_TIMED_OUT"
    assert documents.job_document(records.job_record(raw))["state"] == "timed_out"


def test_answers_may_leave_out_defaults() -> None:
    job = records.job_record({"job_id": "7", "state": "JOB_STATE_PENDING", "spec": {"user": "bob"}})
    assert (job.job_id, job.state, job.nodes, job.submitted_at) == (7, "Pending", (), None)
    assert records.node_record({"name": "cn01"}).state == "down"
    assert details.job_details(job, PLAIN)[0].startswith("Job 7")


def test_unknown_hook_point_is_told() -> None:
    with pytest.raises(records.AnswerError, match="NEW_POINT"):
        records.hook_run({"point": "HOOK_POINT_NEW_POINT"})


def test_nanoseconds_and_whole_seconds_are_times() -> None:
    run = records.hook_run(
        {"point": "HOOK_POINT_PROLOG", "started_at": "2026-11-21T09:40:11.123456789Z", "duration": "0.250000001s"}
    )
    assert rfc3339(run.started_at) == "2026-11-21T09:40:11.123456Z"
    assert run.duration_s == pytest.approx(0.25)
    assert rfc3339(records.hook_run({"point": "HOOK_POINT_PROLOG", "started_at": "2026-11-21T09:40:11Z"}).started_at) is not None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0124, "12 ms"),
        (0.9996, "1.00 s"),
        (1.236, "1.24 s"),
        (59.96, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3725, "1 h 02 min"),
        (90000, "1 d 01 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "+0.000"), (-0.5, "-0.500"), (9.99, "+9.990"), (12.34, "+12.3"), (125, "+2:05"), (3725, "+1:02:05")]
)
def test_offsets(seconds: float, text: str) -> None:
    assert offset(seconds) == text


def test_small_words() -> None:
    assert memory(4 << 30) == "4 GiB"
    assert memory(0) == "0 B"
    assert sentence(["a"]) == "a"
    assert sentence(["a", "b", "c"]) == "a, b and c"
    assert printable("a\tb\x07") == "a    b\\x07"
    assert shortened("abcdef", 4) == "abc…"
    assert last_lines("a\n\nb\nc\n", 2) == ["b", "c"]


def test_table_pads_by_what_is_seen() -> None:
    from cranecli.render.table import Cell

    lines = table([Column("A"), Column("N", right=True), Column("B")], [[Cell("x", Tone.BAD), "12", ""]], Style(coloured=True))
    assert lines[1] == "\x1b[1;31mx\x1b[0m  12  -"


def test_long_last_field_goes_on_below_itself() -> None:
    lines = table([Column("A"), Column("REASON")], [["x", "one two three four five six seven eight nine"]], PLAIN, 35)
    assert lines == ["A  REASON", "x  one two three four five six", "   seven eight nine"]
    assert max(len(line) for line in lines) <= 35
    assert len(table([Column("A"), Column("B")], [["x", "y" * 200]], PLAIN)) == 2


if __name__ == "__main__":
    # Renews the golden files: read the difference before it is committed.
    import os
    import time

    os.environ["TZ"] = "UTC"
    time.tzset()
    for page_name, page_lines in pages().items():
        (FIXTURES / f"{page_name}.txt").write_text("\n".join(page_lines) + "\n")
