"""What one system does otherwise than the next, and scripts rely on: sixteen traps, each with its golden row for every profile."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from cranehooks.execution.scripts import planned
from cranehooks.model.points import HookPoint
from cranehooks.plan import PlanFailure
from cranehooks.profiles import PROFILES, effective
from cranehooks.settings import load
from tests.support.reconfiguration import reconfigured
from tests.support.scripted_cluster import ScriptedCluster, runs_of, texts_of

in_every_profile = pytest.mark.parametrize("profile", PROFILES)

ALL_POINTS = ("CranectldProlog", "Prolog", "CrunProlog", "TaskProlog", "TaskEpilog", "CrunEpilog", "Epilog", "CranectldEpilog")


def only(**hooks: object) -> Mapping[str, object]:
    """These keys of the hooks' section, and no hook besides."""
    return {**dict.fromkeys(ALL_POINTS), **hooks}


def add(stage: ScriptedCluster, *names: str) -> None:
    """Tracing scripts below the cluster's hooks, under these names."""
    for name in names:
        path = stage.hooks / name
        path.parent.mkdir(exist_ok=True, mode=0o755)
        path.write_text((stage.hooks / "task").read_text())
        path.chmod(0o755)


@contextmanager
def prologs(stage: ScriptedCluster, profile: str, entries: Sequence[str], **more: object) -> Iterator[None]:
    """The cluster with a Prolog of these entries, relative to the hooks' directory."""
    with reconfigured(stage, only(Prolog=[str(stage.hooks / entry) for entry in entries], **more), Profile=profile):
        yield


def planned_order(stage: ScriptedCluster) -> list[str]:
    """What the plan says of the files that are there."""
    hooks = load(stage.cluster.config_file).hook_settings()
    plan = planned(effective(hooks), hooks.patterns[HookPoint.PROLOG])
    assert not isinstance(plan, PlanFailure)
    return [str(Path(path).relative_to(stage.hooks)) for path in plan.scripts]


def real_order(stage: ScriptedCluster, label: str) -> list[str]:
    """In which order they run for a job."""
    stage.submit(label, "true")
    assert stage.ended(label).state == "Completed"
    return [str(Path(call.argv[0]).relative_to(stage.hooks)) for call in stage.calls(label)]


def assert_order(stage: ScriptedCluster, profile: str, trap: str, entries: Sequence[str], expected: str) -> None:
    with prologs(stage, profile, entries):
        assert planned_order(stage) == expected.split()
        assert real_order(stage, f"{trap}-{profile}") == expected.split()


# ---- order


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("crane-requeue", "w2.d/2 w2.d/1 w1.d/2 w1.d/1"),
        ("crane-fail", "w2.d/2 w2.d/1 w1.d/2 w1.d/1"),
        ("slurm", "w1.d/2 w1.d/1 w2.d/2 w2.d/1"),
        ("sunk", "w1.d/1 w1.d/2 w2.d/1 w2.d/2"),
    ],
)
def test_1_slurm_reverses_within_one_pattern_and_keeps_the_order_of_patterns(
    stage: ScriptedCluster, profile: str, expected: str
) -> None:
    add(stage, "w1.d/1", "w1.d/2", "w2.d/1", "w2.d/2")
    assert_order(stage, profile, "within", ["w1.d/*", "w2.d/*"], expected)


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("crane-requeue", "l-z.sh l.d/x l-b.sh l-a.sh"),
        ("crane-fail", "l-z.sh l.d/x l-b.sh l-a.sh"),
        ("slurm", "l-b.sh l-a.sh l.d/x l-z.sh"),
        ("sunk", "l-a.sh l-b.sh l-z.sh l.d/x"),
    ],
)
def test_2_crane_sorts_the_whole_list_by_full_path_and_keeps_no_comma_order(
    stage: ScriptedCluster, profile: str, expected: str
) -> None:
    add(stage, "l-a.sh", "l-b.sh", "l-z.sh", "l.d/x")
    # `.` comes after `-`: whole paths compare, as bytes.
    expected = expected.replace("l-z.sh l.d/x l-b.sh", "l.d/x l-z.sh l-b.sh")
    assert_order(stage, profile, "list", ["l-b.sh", "l-a.sh", "l.d/*", "l-z.sh"], expected)


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("crane-requeue", "n.d/z n.d/a n.d/Z n.d/A n.d/9-x n.d/20-x n.d/10-x"),
        ("crane-fail", "n.d/z n.d/a n.d/Z n.d/A n.d/9-x n.d/20-x n.d/10-x"),
        ("slurm", "n.d/z n.d/a n.d/Z n.d/A n.d/9-x n.d/20-x n.d/10-x"),
        ("sunk", "n.d/10-x n.d/20-x n.d/9-x n.d/A n.d/Z n.d/a n.d/z"),
    ],
)
def test_3_reverse_order_is_of_bytes_so_that_20_runs_before_10_and_9_before_both(
    stage: ScriptedCluster, profile: str, expected: str
) -> None:
    add(stage, *(f"n.d/{name}" for name in ("10-x", "20-x", "9-x", "A", "Z", "a", "z")))
    assert_order(stage, profile, "numbers", ["n.d/*"], expected)


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("crane-requeue", "u.d/é u.d/b u.d/_x u.d/B u.d/2"),
        ("crane-fail", "u.d/é u.d/b u.d/_x u.d/B u.d/2"),
        ("slurm", "u.d/é u.d/b u.d/_x u.d/B u.d/2"),
        ("sunk", "u.d/2 u.d/B u.d/_x u.d/b u.d/é"),
    ],
)
def test_4_run_parts_is_ascending_and_nothing_depends_on_the_locale(stage: ScriptedCluster, profile: str, expected: str) -> None:
    add(stage, *(f"u.d/{name}" for name in ("2", "B", "_x", "b", "é")))
    assert_order(stage, profile, "locale", ["u.d/*"], expected)


# ---- failures and timeouts


@in_every_profile
def test_5_a_hook_stops_at_its_first_failing_script_before_and_after_the_job(stage: ScriptedCluster, profile: str) -> None:
    add(stage, "s.d/1", "s.d/2", "s.d/3", "t.d/1", "t.d/2", "t.d/3")
    label = f"stops-{profile}"
    for name in ("s.d/2", "t.d/2"):
        stage.plan(label, Path(name).name, "exit 3")
    patterns = {"Prolog": f"{stage.hooks}/s.d/*", "Epilog": f"{stage.hooks}/t.d/*"}
    with reconfigured(stage, only(**patterns), Profile=profile):
        stage.submit(label, "true", "--no-requeue", "-w", "cn01")
        stage.ended(label)
        ran = [str(Path(call.argv[0]).relative_to(stage.hooks)) for call in stage.calls(label)]
        assert ran == {"sunk": ["s.d/1", "s.d/2", "t.d/1", "t.d/2"]}.get(profile, ["s.d/3", "s.d/2", "t.d/3", "t.d/2"])
    with reconfigured(stage, only(Epilog=patterns["Epilog"], ContinueOnFailure=["Epilog"]), Profile=profile):
        stage.plan(f"all-{label}", "2", "exit 3")
        stage.submit(f"all-{label}", "true")
        stage.ended(f"all-{label}")
        assert len(stage.calls(f"all-{label}")) == 3


@pytest.mark.parametrize(
    ("profile", "outcomes"),
    [
        ("crane-requeue", ["ok", "timeout after 4 s"]),
        ("crane-fail", ["ok", "timeout after 4 s"]),
        ("slurm", ["ok", "ok"]),
        ("sunk", ["ok", "ok"]),
    ],
)
def test_6_one_timeout_covers_the_whole_list_under_crane_and_each_script_under_slurm(
    stage: ScriptedCluster, profile: str, outcomes: list[str]
) -> None:
    add(stage, "c.d/1", "c.d/2")
    label = f"covers-{profile}"
    for name in ("1", "2"):
        stage.plan(label, name, "sleep 2.2")
    with reconfigured(stage, only(Epilog=f"{stage.hooks}/c.d/*", EpilogTimeout=4), Profile=profile):
        stage.submit(label, "true")
        (run,) = runs_of(stage.ended(label), HookPoint.EPILOG)
        assert [str(script.outcome) for script in run.scripts] == outcomes
        assert any(node.drains for node in stage.nodes().values()) is (outcomes[-1] != "ok")


@pytest.mark.parametrize(
    ("profile", "state"), [("crane-requeue", "Completed"), ("crane-fail", "Completed"), ("slurm", "Held"), ("sunk", "Completed")]
)
def test_7_a_pattern_without_a_match_fails_the_prolog_under_slurm_and_is_no_hook_elsewhere(
    stage: ScriptedCluster, profile: str, state: str
) -> None:
    add(stage, "e.d/10-there")
    label = f"empty-{profile}"
    with prologs(stage, profile, ["e.d/*", "nothing.d/*"]):
        stage.submit(label, "true", "-w", "cn01")
        job = stage.await_state(label, "Completed", "Held")
        assert job.state == state
        ran = [call.point for call in stage.calls(label)]
        drains = [cause.reason for cause in stage.nodes()["cn01"].drains]
        if state == "Held":
            # Not even the script that there is.
            assert ran == []
            (reason,) = drains
            assert reason.startswith(f"prolog spawn failed: refused (job {job.job_id}, attempt 1): no file matches ")
            assert f"{stage.hooks}/nothing.d/*" in reason
        else:
            assert (ran, drains) == (["10-there"], [])


@pytest.mark.parametrize(
    ("profile", "seconds"), [("crane-requeue", 60.0), ("crane-fail", 60.0), ("slurm", 300.0), ("sunk", 300.0)]
)
def test_8_without_a_timeout_a_finite_one_applies_to_all_but_the_hooks_of_crun(
    stage: ScriptedCluster, profile: str, seconds: float
) -> None:
    with reconfigured(stage, Profile=profile):
        points = stage.hookctl_json("plan", "--config", str(stage.cluster.config_file))["points"]
        found = {point["point"]: point["timeout_s"] for point in points}
        assert found == {point: None if point.startswith("Crun") else seconds for point in ALL_POINTS}


@pytest.mark.parametrize(
    ("profile", "shared", "own", "is_ended"),
    [
        *((profile, 1, 3600, True) for profile in ("crane-requeue", "crane-fail")),
        *((profile, 3600, 1, False) for profile in ("crane-requeue", "crane-fail")),
        *((profile, 1, 3600, False) for profile in ("slurm", "sunk")),
        *((profile, 3600, 1, True) for profile in ("slurm", "sunk")),
    ],
)
def test_9_the_shared_timeout_overrides_the_others_under_crane_and_is_their_default_under_slurm(
    stage: ScriptedCluster, profile: str, shared: float, own: float, is_ended: bool
) -> None:
    label = f"shared-{profile}-{shared}"
    stage.plan(label, "Epilog", "sleep 1.3")
    timeouts = {"PrologEpilogTimeout": shared, "EpilogTimeout": own}
    with reconfigured(stage, only(Epilog=stage.hook("Epilog"), **timeouts), Profile=profile):
        stage.submit(label, "true")
        (run,) = runs_of(stage.ended(label), HookPoint.EPILOG)
        assert str(run.outcome) == ("timeout after 1 s" if is_ended else "ok")


# ---- the launch node


@in_every_profile
def test_10_a_failing_crun_epilog_does_not_change_the_exit_code(stage: ScriptedCluster, profile: str) -> None:
    with reconfigured(stage, only(CrunEpilog=stage.hook("CrunEpilog")), Profile=profile):
        for code, state in ((0, "Completed"), (4, "Failed")):
            label = f"crun-epilog-{profile}-{code}"
            stage.plan(label, "CrunEpilog", "exit 6")
            result = stage.run("crun", "sh", "-c", f"exit {code}", label=label)
            assert result.returncode == code
            assert f"CrunEpilog {stage.hook('CrunEpilog')} exit 6" in result.stderr
            assert stage.ended(label).state == state


@in_every_profile
def test_11_hooks_of_crun_have_no_timeout_unless_one_is_configured(stage: ScriptedCluster, profile: str) -> None:
    label = f"unbounded-{profile}"
    stage.plan(label, "CrunProlog", "sleep 1.3")
    scripts = {"CrunProlog": stage.hook("CrunProlog"), "CrunEpilog": stage.hook("CrunEpilog")}
    others = {"PrologTimeout": 1, "EpilogTimeout": 1, "PrologEpilogTimeout": 1, "DefaultTimeout": 1}
    with reconfigured(stage, only(**scripts, **others), Profile=profile):
        assert stage.run("crun", "echo", "ran", label=label).stdout == "ran\n"
    with reconfigured(stage, only(**scripts, CrunPrologTimeout=1), Profile=profile):
        result = stage.run("crun", "echo", "ran", label=label)
        assert (result.returncode, result.stdout) == (1, "")
        assert "timeout after 1 s" in result.stderr


# ---- when and where


@in_every_profile
def test_12_prologs_of_the_nodes_start_after_that_of_the_controller_has_ended(stage: ScriptedCluster, profile: str) -> None:
    label = f"after-{profile}"
    gate = stage.gate(label)
    ended = stage.work / f"{label}.ended"
    stage.plan(label, "CranectldProlog", gate.line, f"touch {ended}")
    stage.plan(label, "Prolog", f"test -e {ended} || exit 3")
    flags = {"AllowedPrologFlags": "Alloc", "PrologFlags": "Alloc"}
    with reconfigured(stage, {**flags, "CrunProlog": None}, Profile=profile):
        stage.submit(label, "true", "-N2", "-n2")
        gate.await_arrivals()
        assert stage.job(label).state == "Configuring"
        gate.open()
        assert stage.ended(label).state == "Completed"
        assert stage.calls(label)[0].point == "CranectldProlog"
        assert len(stage.calls(label, "Prolog")) == 2
        assert not any(node.drains for node in stage.nodes().values())


@in_every_profile
def test_13_serial_gives_prolog_and_epilog_one_turn_and_waiting_is_no_time_of_the_script(
    stage: ScriptedCluster, profile: str
) -> None:
    first, second = f"turn-1-{profile}", f"turn-2-{profile}"
    gate = stage.gate(first)
    ended = stage.work / f"{first}.ended"
    # The second job's Prolog waits for longer than it may run.
    stage.plan(first, "Epilog", gate.line, "sleep 3.3", f"touch {ended}")
    stage.plan(second, "Prolog", f"test -e {ended} || exit 3")
    scripts = {"Prolog": stage.hook("Prolog"), "Epilog": stage.hook("Epilog")}
    with reconfigured(stage, only(**scripts, PrologFlags="Serial", PrologTimeout=3, EpilogTimeout=3600), Profile=profile):
        stage.submit(first, "true", "-w", "cn01")
        gate.await_arrivals()
        stage.submit(second, "true", "-w", "cn01")
        stage.await_state(second, "Running")
        gate.open()
        job = stage.ended(second)
        assert job.state == "Completed"
        (run,) = runs_of(job, HookPoint.PROLOG)
        assert str(run.outcome) == "ok"
        assert run.queue_wait_s > 3


@in_every_profile
def test_14_epilog_runs_on_every_node_at_release_where_prolog_never_ran_too(stage: ScriptedCluster, profile: str) -> None:
    label = f"every-{profile}"
    with reconfigured(stage, Profile=profile):
        stage.submit(label, "true", "-N2", "-n2")
        assert stage.ended(label).state == "Completed"
        assert [call.node for call in stage.calls(label, "Prolog")] == ["cn01"]
        assert sorted(call.node for call in stage.calls(label, "Epilog")) == ["cn01", "cn02"]


@in_every_profile
def test_15_a_child_that_keeps_the_output_open_does_not_keep_the_hook(stage: ScriptedCluster, profile: str) -> None:
    label = f"holder-{profile}"
    is_up = "until grep -q sleep /proc/$!/comm; do :; done"
    stage.plan(label, "Prolog", "sleep 3600 &", is_up, "setsid sleep 3601 &", is_up, "echo started")
    with reconfigured(stage, Profile=profile):
        stage.submit(label, "true")
        job = stage.ended(label)
        assert job.state == "Completed"
        (run,) = runs_of(job, HookPoint.PROLOG)
        (script,) = run.scripts
        assert (str(script.outcome), script.output) == ("ok", "started\n")
        assert sorted(left.command for left in script.leftovers) == ["sleep 3600", "sleep 3601"]


ENDINGS = {
    "crane-requeue": ("Cancelled", "0:0"),
    "crane-fail": ("Failed", "1:0"),
    "slurm": ("Cancelled", "0:0"),
    "sunk": ("Cancelled", "0:0"),
}


@in_every_profile
def test_16_exit_codes_and_drain_reasons_say_what_happened(stage: ScriptedCluster, profile: str) -> None:
    prolog, epilog = f"reason-p-{profile}", f"reason-e-{profile}"
    stage.plan(prolog, "Prolog", "echo checking", "echo no GPU >&2", "exit 3")
    stage.plan(epilog, "Epilog", "echo /scratch is busy", "exit 4")
    with reconfigured(stage, Profile=profile):
        result = stage.run("crun", "-w", "cn01", "true", label=prolog)
        assert result.returncode == 1
        job = stage.ended(prolog)
        assert (job.state, f"{job.exit.code}:{job.exit.signal}") == ENDINGS[profile]
        assert job.reason == "Prolog Prolog exit 3 on cn01: no GPU"
        assert f"prolog Prolog exit 3 (job {job.job_id}, attempt 1): no GPU" in result.stderr
        assert [cause.reason for cause in stage.nodes()["cn01"].drains] == [
            f"prolog Prolog exit 3 (job {job.job_id}, attempt 1): no GPU"
        ]
        result = stage.run("crun", "-w", "cn02", "sh", "-c", "exit 7", label=epilog)
        assert result.returncode == 7
        job = stage.ended(epilog)
        assert (job.state, f"{job.exit.code}:{job.exit.signal}") == ("Failed", "7:0")
        assert [cause.reason for cause in stage.nodes()["cn02"].drains] == [
            f"epilog Epilog exit 4 (job {job.job_id}, attempt 1): /scratch is busy"
        ]
        assert "drained" in texts_of(job)


# ---- files


@in_every_profile
def test_editor_backups_are_scripts_of_a_pattern_and_run_parts_passes_them_over(stage: ScriptedCluster, profile: str) -> None:
    add(stage, "b.d/10-a.sh", "b.d/10-a.sh~", "b.d/10-a.sh.rpmsave", "b.d/.10-a.sh.swp")
    by_pattern = {"b.d/10-a.sh", "b.d/10-a.sh~", "b.d/10-a.sh.rpmsave"}
    with prologs(stage, profile, ["b.d/*"]):
        assert set(real_order(stage, f"backups-{profile}")) == by_pattern
    with prologs(stage, profile, ["b.d"], DirectoryEntry="run-parts"):
        assert real_order(stage, f"parts-{profile}") == ["b.d/10-a.sh"]
        (run,) = runs_of(stage.job(f"parts-{profile}"), HookPoint.PROLOG)
        assert run.notes == (f"passed over in {stage.hooks}/b.d: .10-a.sh.swp (name), 10-a.sh.rpmsave (name), 10-a.sh~ (name)",)


@in_every_profile
def test_a_file_that_is_not_executable_fails_a_pattern_and_run_parts_passes_it_over(stage: ScriptedCluster, profile: str) -> None:
    add(stage, "x.d/10-a", "x.d/20-b")
    (stage.hooks / "x.d/10-a").chmod(0o644)
    label = f"mode-{profile}"
    with prologs(stage, profile, ["x.d/*"]):
        result = stage.run("crun", "-w", "cn01", "true", label=label)
        assert result.returncode == 1
        job = stage.ended(label)
        assert job.reason == f"Prolog 10-a spawn failed: EACCES on cn01: is not executable; chmod a+x {stage.hooks}/x.d/10-a"
        # In descending order the other one comes first.
        assert [call.point for call in stage.calls(label)] == ([] if profile == "sunk" else ["20-b"])
    with prologs(stage, profile, ["x.d"], DirectoryEntry="run-parts"):
        assert real_order(stage, f"skips-{label}") == ["x.d/20-b"]


@pytest.mark.parametrize("profile", PROFILES)
def test_relative_paths_start_at_the_directory_of_the_configuration(stage: ScriptedCluster, profile: str) -> None:
    here = os.path.relpath(stage.hooks, stage.cluster.config_file.parent)
    label = f"relative-{profile}"
    with reconfigured(stage, only(Prolog=f"{here}/Prolog, {here}/Epi*"), Profile=profile):
        stage.submit(label, "true")
        assert stage.ended(label).state == "Completed"
        assert sorted(call.point for call in stage.calls(label)) == ["Epilog", "Prolog"]


@pytest.mark.parametrize(
    ("profile", "state"),
    [("crane-requeue", "Completed"), ("crane-fail", "Completed"), ("slurm", "Cancelled"), ("sunk", "Completed")],
)
def test_a_directory_in_a_pattern_fails_the_hook_under_slurm_and_is_passed_over_elsewhere(
    stage: ScriptedCluster, profile: str, state: str
) -> None:
    add(stage, "y.d/10-a", "y.d/30-c")
    (stage.hooks / "y.d/20-sub").mkdir(exist_ok=True)
    label = f"directory-{profile}"
    with prologs(stage, profile, ["y.d/*"]):
        stage.submit(label, "true", "-w", "cn01", "--no-requeue")
        job = stage.ended(label)
        assert job.state == state
        (run,) = runs_of(job, HookPoint.PROLOG)
        ran = [call.point for call in stage.calls(label)]
        if state == "Completed":
            assert sorted(ran) == ["10-a", "30-c"]
            assert run.notes == (f"passed over in {stage.hooks}/y.d/*: 20-sub (directory)",)
        else:
            # As Slurm: those that come before it run.
            assert ran == ["30-c"]
            (cause,) = stage.nodes()["cn01"].drains
            assert cause.reason.startswith(f"prolog 20-sub spawn failed: EISDIR (job {job.job_id}, attempt 1): is a directory")


@in_every_profile
def test_what_task_hooks_pass_over_is_told(stage: ScriptedCluster, profile: str) -> None:
    add(stage, "k.d/10-a", "k.d/10-a~")
    label = f"task-notes-{profile}"
    hooks = {"TaskProlog": f"{stage.hooks}/k.d", "TaskEpilog": f"{stage.hooks}/k.d", "DirectoryEntry": "run-parts"}
    with reconfigured(stage, only(**hooks), Profile=profile):
        assert stage.run("crun", "true", label=label).returncode == 0
        job = stage.ended(label)
        for point in (HookPoint.TASK_PROLOG, HookPoint.TASK_EPILOG):
            (run,) = runs_of(job, point)
            assert run.notes == (f"passed over in {stage.hooks}/k.d: 10-a~ (name)",)
        assert f"passed over in {stage.hooks}/k.d: 10-a~ (name)" in stage.hookctl("job", str(job.job_id)).stdout
