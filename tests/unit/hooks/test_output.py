"""Output of hooks made small: what stays, and what is said of the rest."""

import re

from hypothesis import given
from hypothesis import strategies as st

from cranehooks.model.ids import Attempt, JobId
from cranehooks.model.outcome import OK
from cranehooks.model.output import clipped, clipped_script
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookKey, HookRun, ScriptRun

LINES = "".join(f"line {number}\n" for number in range(10_000))


def script_of(output: str, written_bytes: int | None = None) -> ScriptRun:
    return ScriptRun("/p.sh", OK, 0.0, 0.0, output=output, output_bytes=written_bytes or len(output.encode("utf-8", "replace")))


def run_of(*outputs: str) -> HookRun:
    return HookRun(HookKey(HookPoint.PROLOG, JobId(1), Attempt(1)), "root", 0.0, 0.0, OK, tuple(map(script_of, outputs)))


def size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def test_head_and_tail_stay_and_a_line_says_what_is_missing() -> None:
    output = clipped_script(script_of(LINES), 1000).output
    assert size(output) <= 1000
    assert output.startswith("line 0\nline 1\n")
    assert output.endswith("line 9998\nline 9999\n")
    (dropped,) = re.findall(r"^\[\.\.\. (\d+) bytes dropped \.\.\.\]$", output, re.MULTILINE)
    mark = f"[... {dropped} bytes dropped ...]\n"
    head, tail = output.split(mark)
    assert int(dropped) in {len(LINES) - len(head) - len(tail), len(LINES) - len(head.removesuffix("\n")) - len(tail)}


def test_what_was_dropped_while_the_script_ran_is_counted_too() -> None:
    output = "a" * 2000 + "\n[... 5000000 bytes dropped ...]\n" + "z" * 2000
    told = clipped_script(script_of(output, 5_004_000), 1000).output
    match = re.fullmatch(r"(a+)\n\[\.\.\. (\d+) bytes dropped \.\.\.\]\n(z+)", told)
    assert match is not None
    assert len(match[1]) + int(match[2]) + len(match[3]) == 5_004_000


def test_scripts_that_wrote_little_keep_it_and_the_others_share_the_rest() -> None:
    short, long, longer = clipped(run_of("fine\n", LINES, LINES * 2), 10_005).scripts
    assert short.output == "fine\n"
    assert 4900 < size(long.output) <= 5000
    assert 4900 < size(longer.output) <= 5000
    assert all(script.last_line == "line 9999" for script in (long, longer))


def test_a_run_within_the_limit_stays_as_it_is() -> None:
    run = run_of(LINES, "x")
    assert clipped(run, size(LINES) + 1) is run


def test_the_last_line_outlives_blank_lines_and_small_shares() -> None:
    assert clipped_script(script_of(f"{LINES}no GPU{chr(10) * 5000}"), 1000).last_line == "no GPU"
    assert clipped_script(script_of(f"{LINES}no GPU\n"), 20).last_line == "no GPU"


@given(st.lists(st.text() | st.just("ä€𝄞\udc80" * 300), max_size=4), st.integers(0, 2000))
def test_no_run_exceeds_its_limit(outputs: list[str], limit_bytes: int) -> None:
    run = clipped(run_of(*outputs), limit_bytes)
    assert sum(size(script.output) for script in run.scripts) <= limit_bytes
    assert [script.path for script in run.scripts] == ["/p.sh"] * len(outputs)
