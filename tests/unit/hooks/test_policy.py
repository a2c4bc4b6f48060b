"""What outcomes mean: the table of profiles, cell by cell."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cranehooks.model.ids import Attempt, JobId, NodeName
from cranehooks.model.job import ExitStatus, JobKind
from cranehooks.model.outcome import OK, Outcome, OutcomeKind
from cranehooks.model.points import CONTRACTS, HookPoint, Phase
from cranehooks.model.run import HookKey, HookRun, HookSettings, ScriptRun
from cranehooks.policy import (
    DRAIN_REASON_LIMIT,
    JobAction,
    RequeuePolicy,
    StepAction,
    TaskAction,
    Verdict,
    decide,
    decide_outcome,
    drain_reason,
    lost_node_action,
    task_exit,
)
from cranehooks.profiles import PROFILES

EXIT_3 = Outcome(OutcomeKind.EXIT, 3)
FAILURES = [
    EXIT_3,
    Outcome(OutcomeKind.SIGNAL, 9),
    Outcome(OutcomeKind.TIMEOUT, 60),
    Outcome(OutcomeKind.SPAWN, 2),
    Outcome(OutcomeKind.UNKILLABLE),
    Outcome(OutcomeKind.LOST),
]
BATCH, RUN, ALLOCATION = JobKind.BATCH, JobKind.RUN, JobKind.ALLOCATION
REQUEUE, HELD, CANCEL, FAIL = JobAction.REQUEUE, JobAction.REQUEUE_HELD, JobAction.CANCEL, JobAction.FAIL


def verdict(
    point: HookPoint,
    outcome: Outcome,
    profile: str = "crane-requeue",
    kind: JobKind = BATCH,
    *,
    requeue: bool = True,
    flags: tuple[str, ...] = (),
    hold: bool | None = None,
    user_unknown: bool = False,
) -> Verdict:
    return decide_outcome(
        point,
        outcome,
        kind=kind,
        requeue_allowed=requeue,
        profile=PROFILES[profile],
        flags=flags,
        hold_on_prolog_fail=hold,
        user_unknown=user_unknown,
    )


# Profile: (batch, batch --no-requeue, batch --no-requeue with ForceRequeueOnFail, crun, calloc)
PROLOG = {
    "crane-requeue": (REQUEUE, CANCEL, REQUEUE, CANCEL, CANCEL),
    "crane-fail": (FAIL, FAIL, FAIL, FAIL, FAIL),
    "slurm": (HELD, CANCEL, HELD, CANCEL, CANCEL),
    "sunk": (HELD, CANCEL, HELD, CANCEL, CANCEL),
}
CRANECTLD_PROLOG = {
    "crane-requeue": (REQUEUE, CANCEL, CANCEL, CANCEL, CANCEL),
    "crane-fail": (FAIL, FAIL, FAIL, FAIL, FAIL),
    "slurm": (REQUEUE, CANCEL, CANCEL, CANCEL, CANCEL),
    "sunk": (REQUEUE, CANCEL, CANCEL, CANCEL, CANCEL),
}


@pytest.mark.parametrize("outcome", FAILURES, ids=str)
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    ("point", "table", "drains"), [(HookPoint.PROLOG, PROLOG, True), (HookPoint.CRANECTLD_PROLOG, CRANECTLD_PROLOG, False)]
)
def test_what_a_failing_prolog_does_to_the_job(
    point: HookPoint, table: dict[str, tuple[JobAction, ...]], drains: bool, profile: str, outcome: Outcome
) -> None:
    verdicts = (
        verdict(point, outcome, profile),
        verdict(point, outcome, profile, requeue=False),
        verdict(point, outcome, profile, requeue=False, flags=("Alloc", "ForceRequeueOnFail")),
        verdict(point, outcome, profile, RUN),
        verdict(point, outcome, profile, ALLOCATION),
    )
    assert tuple(one.job for one in verdicts) == table[profile]
    assert all(one.drain is drains for one in verdicts)
    assert all(one.task is TaskAction.CONTINUE and one.step is StepAction.CONTINUE for one in verdicts)


@pytest.mark.parametrize(
    ("profile", "hold", "action"),
    [
        ("slurm", False, REQUEUE),
        ("slurm", True, HELD),
        ("sunk", None, HELD),
        ("crane-requeue", True, HELD),
        ("crane-requeue", None, REQUEUE),
        ("crane-fail", True, FAIL),
    ],
)
def test_hold_on_prolog_fail(profile: str, hold: bool | None, action: JobAction) -> None:
    assert verdict(HookPoint.PROLOG, EXIT_3, profile, hold=hold).job is action


@pytest.mark.parametrize(
    ("profile", "task", "step"),
    [
        ("crane-requeue", TaskAction.CANCEL, StepAction.CANCEL),
        ("crane-fail", TaskAction.FAIL, StepAction.FAIL),
        ("slurm", TaskAction.EXIT_AS_HOOK, StepAction.CANCEL),
        ("sunk", TaskAction.EXIT_AS_HOOK, StepAction.CANCEL),
    ],
)
def test_task_and_crun_prologs(profile: str, task: TaskAction, step: StepAction) -> None:
    assert verdict(HookPoint.TASK_PROLOG, EXIT_3, profile) == Verdict(task=task, failed=True)
    assert verdict(HookPoint.STEP_TASK_PROLOG, EXIT_3, profile) == Verdict(task=task, failed=True)
    assert verdict(HookPoint.CRUN_PROLOG, EXIT_3, profile) == Verdict(step=step, failed=True)


@pytest.mark.parametrize("outcome", FAILURES, ids=str)
@pytest.mark.parametrize("profile", PROFILES)
def test_a_failing_epilog_drains_and_leaves_the_job_alone(profile: str, outcome: Outcome) -> None:
    assert verdict(HookPoint.EPILOG, outcome, profile) == Verdict(drain=True, failed=True)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    "point", [HookPoint.CRANECTLD_EPILOG, HookPoint.TASK_EPILOG, HookPoint.STEP_TASK_EPILOG, HookPoint.CRUN_EPILOG]
)
def test_other_failing_epilogs_are_logged(point: HookPoint, profile: str) -> None:
    assert verdict(point, EXIT_3, profile).log_only


EVERYTHING = list(itertools.product(HookPoint, OutcomeKind, PROFILES, JobKind, [True, False]))


@pytest.mark.parametrize("profile", PROFILES)
def test_invariants_over_everything(profile: str) -> None:
    for point, kind, name, job_kind, requeue in EVERYTHING:
        if name != profile:
            continue
        one = verdict(point, OK if kind is OutcomeKind.OK else Outcome(kind, 1), name, job_kind, requeue=requeue)
        told = (point, kind, job_kind, requeue, one)
        if kind is OutcomeKind.OK:
            assert one == Verdict(), told
        if kind in {OutcomeKind.STOPPED, OutcomeKind.UNREACHABLE}:
            assert not one.drain, told
        if kind is OutcomeKind.STOPPED:
            assert one.job is JobAction.CONTINUE, told
            assert not one.failed, told
        if CONTRACTS[point].phase is Phase.AFTER:
            assert (one.job, one.step, one.task) == (JobAction.CONTINUE, StepAction.CONTINUE, TaskAction.CONTINUE), told
        if job_kind.is_interactive:
            assert one.job not in {REQUEUE, HELD}, told
        if point in {HookPoint.CRANECTLD_PROLOG, HookPoint.CRANECTLD_EPILOG, HookPoint.CRUN_PROLOG, HookPoint.CRUN_EPILOG}:
            assert not one.drain, told
        if not requeue:
            assert one.job not in {REQUEUE, HELD}, told


@pytest.mark.parametrize("point", [HookPoint.TASK_PROLOG, HookPoint.STEP_TASK_PROLOG])
def test_a_task_whose_prolog_was_stopped_does_not_start(point: HookPoint) -> None:
    assert verdict(point, Outcome(OutcomeKind.STOPPED)).task is TaskAction.CANCEL
    assert verdict(HookPoint.CRUN_PROLOG, Outcome(OutcomeKind.STOPPED)).step is StepAction.CANCEL


def test_what_survives_kill_drains_even_after_a_task_hook() -> None:
    assert verdict(HookPoint.TASK_EPILOG, Outcome(OutcomeKind.UNKILLABLE)) == Verdict(drain=True, failed=True)
    assert verdict(HookPoint.TASK_PROLOG, Outcome(OutcomeKind.UNKILLABLE)).drain


def test_an_unknown_user_fails_the_job_and_drains_nothing() -> None:
    unknown = Outcome(OutcomeKind.SPAWN, 0, "no user with uid 4711 on this node")
    for profile in PROFILES:
        assert verdict(HookPoint.PROLOG, unknown, profile, user_unknown=True) == Verdict(job=FAIL, failed=True)
        assert verdict(HookPoint.EPILOG, unknown, profile, user_unknown=True).log_only


@pytest.mark.parametrize("profile", PROFILES)
def test_an_unreachable_node_requeues_batch_jobs_unheld(profile: str) -> None:
    gone = Outcome(OutcomeKind.UNREACHABLE)
    assert verdict(HookPoint.PROLOG, gone, profile) == Verdict(job=REQUEUE, failed=True)
    assert verdict(HookPoint.PROLOG, gone, profile, requeue=False).job is CANCEL
    assert verdict(HookPoint.PROLOG, gone, profile, RUN).job is CANCEL
    assert lost_node_action(BATCH, requeue_allowed=True) is REQUEUE


@pytest.mark.parametrize(
    ("action", "outcome", "exit_status"),
    [
        (TaskAction.EXIT_AS_HOOK, EXIT_3, ExitStatus(3)),
        (TaskAction.EXIT_AS_HOOK, Outcome(OutcomeKind.SIGNAL, 9), ExitStatus(1)),
        (TaskAction.CANCEL, EXIT_3, ExitStatus(1)),
        (TaskAction.FAIL, EXIT_3, ExitStatus(1)),
    ],
)
def test_exit_status_of_a_task_that_never_started(action: TaskAction, outcome: Outcome, exit_status: ExitStatus) -> None:
    assert task_exit(action, outcome) == exit_status


def test_delays_double_up_to_the_cap() -> None:
    policy = RequeuePolicy()
    assert [policy.delay_s(count) for count in range(1, 10)] == [5, 10, 20, 40, 80, 160, 320, 600, 600]
    assert policy.delay_s(10**6) == 600
    assert RequeuePolicy(base_s=1, cap_s=3).delay_s(3) == 3


def test_the_sixth_requeue_is_a_hold() -> None:
    policy = RequeuePolicy()
    assert [policy.is_exhausted(count) for count in range(7)] == [False] * 5 + [True] * 2
    assert RequeuePolicy(max_count=0).is_exhausted(0)


def run(*scripts: ScriptRun, point: HookPoint = HookPoint.PROLOG, outcome: Outcome | None = None) -> HookRun:
    failed = next((script.outcome for script in scripts if not script.outcome.ok), OK)
    key = HookKey(point, JobId(42), Attempt(1), NodeName("cn01"))
    return HookRun(key, "root", 0.0, 1.0, outcome or failed, scripts)


def script(outcome: Outcome, output: str = "", path: str = "/etc/crane/prolog.d/20-gpu.sh") -> ScriptRun:
    return ScriptRun(path, outcome, 0.0, 1.0, output=output)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (run(script(EXIT_3, "a\nno GPU found\n\n")), "prolog 20-gpu.sh exit 3 (job 42, attempt 1): no GPU found"),
        (run(script(EXIT_3)), "prolog 20-gpu.sh exit 3 (job 42, attempt 1)"),
        (run(script(OK, "fine"), script(EXIT_3, path="/b.sh")), "prolog b.sh exit 3 (job 42, attempt 1)"),
        (
            run(script(Outcome(OutcomeKind.TIMEOUT, 60), "waiting"), point=HookPoint.EPILOG),
            "epilog 20-gpu.sh timeout after 60 s (job 42, attempt 1): waiting",
        ),
        (
            run(script(Outcome(OutcomeKind.SPAWN, 2, "does not exist"))),
            "prolog 20-gpu.sh spawn failed: ENOENT (job 42, attempt 1): does not exist",
        ),
        (
            run(outcome=Outcome(OutcomeKind.SPAWN, 0, "no file matches /p.d/*")),
            "prolog spawn failed: refused (job 42, attempt 1): no file matches /p.d/*",
        ),
        (
            run(script(EXIT_3, "\x1b[31mred\x1b[0m\ttab \x07bell\x00")),
            "prolog 20-gpu.sh exit 3 (job 42, attempt 1): red tab bell",
        ),
        (
            run(script(Outcome(OutcomeKind.UNKILLABLE)), point=HookPoint.TASK_EPILOG),
            "task epilog 20-gpu.sh unkillable (job 42, attempt 1)",
        ),
    ],
)
def test_drain_reason(record: HookRun, reason: str) -> None:
    assert drain_reason(record) == reason


@given(st.text(max_size=600), st.text(min_size=1, max_size=300))
def test_a_drain_reason_is_one_short_printable_line(output: str, name: str) -> None:
    reason = drain_reason(run(script(EXIT_3, output, f"/d/{name}")))
    assert len(reason) <= DRAIN_REASON_LIMIT
    assert reason.isprintable()
    assert "(job 42, attempt 1)" in reason


def test_decide_reads_the_settings_of_the_job() -> None:
    record = run(script(EXIT_3, "no GPU found"))
    hooks = HookSettings(profile="slurm")
    assert decide(record, BATCH, requeue_allowed=True, hooks=hooks) == Verdict(
        drain=True, reason="prolog 20-gpu.sh exit 3 (job 42, attempt 1): no GPU found", job=HELD, failed=True
    )
    assert decide(run(script(OK)), BATCH, requeue_allowed=True, hooks=hooks) == Verdict()
    forced = HookSettings(profile="crane-requeue", flags=frozenset({"Alloc", "ForceRequeueOnFail"}))
    assert decide(record, BATCH, requeue_allowed=False, hooks=forced).job is REQUEUE
