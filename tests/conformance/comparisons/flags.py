"""What PrologFlags change, besides the order that `Alloc` changes."""

from collections.abc import Mapping

from tests.conformance.comparison import IN_TURN, PLAIN, WITHOUT_HOLD, comparison
from tests.conformance.stage import Stage
from tests.conformance.system import NODES

FIRST = NODES[0]
_PATIENCE_STEPS = 60
"""Of 50 ms: how long a Prolog waits for another one to run beside it."""


def most_at_once(lines: list[str]) -> int:
    """Of what has begun and not ended yet, over the whole trace."""
    running = most = 0
    for line in lines:
        running += (line == "begin") - (line == "end")
        most = max(most, running)
    return most


def overlap(stage: Stage, steps: int) -> dict[str, str]:
    """Two jobs on one node, whose Prologs wait a while for one another."""
    wait = f"n=0; while [ $(/bin/grep -c begin {stage.notes}/trace) -lt 2 ] && [ $n -lt {steps} ]; do /bin/sleep 0.05; n=$((n + 1)); done"
    note = f"echo {{}} >> {stage.notes}/trace"
    stage.hook("Prolog", note.format("begin"), wait, note.format("end"))
    stage.hook("Epilog", note.format("begin"), note.format("end"))
    for _ in range(2):
        stage.submit("true", "-w", FIRST)
    stage.await_count("Epilog", 2)
    stage.settled()
    stage.idle()
    return {
        "node hooks at once": str(most_at_once(stage.trace())),
        "Prologs": stage.count("Prolog"),
        "Epilogs": stage.count("Epilog"),
    }


@comparison("flags/none, two jobs on one node", PLAIN)
def prologs_run_side_by_side(stage: Stage) -> Mapping[str, str]:
    return overlap(stage, steps=_PATIENCE_STEPS * 10)


@comparison("flags/Serial, two jobs on one node", IN_TURN)
def prologs_take_turns(stage: Stage) -> Mapping[str, str]:
    return overlap(stage, steps=_PATIENCE_STEPS // 2)


@comparison("flags/NoHold", WITHOUT_HOLD)
def allocation_does_not_wait_for_its_prolog(stage: Stage) -> Mapping[str, str]:
    gate = f"{stage.notes}/gate"
    stage.hook("Prolog", f"while [ ! -e {gate} ]; do /bin/sleep 0.05; done", f"echo ended >> {stage.notes}/trace")
    step = f'"{stage.system.programs["srun"]}" sh -c "echo step >> {stage.notes}/trace"'
    # The command opens what the Prolog waits for: were it to wait for the Prolog, neither would end.
    result = stage.salloc("-w", FIRST, "sh", "-c", f"echo command >> {stage.notes}/trace; touch {gate}; {step}")
    stage.settled()
    stage.idle()
    order = [line for line in stage.trace() if line in {"command", "ended", "step"}]
    return {"exit": str(result.code), "order": ", ".join(order), "Prologs": stage.count("Prolog")}
