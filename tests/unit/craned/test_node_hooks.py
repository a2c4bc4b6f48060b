import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest

from craned.hooks.node_hooks import ExternGoneError, NodeHooks, planned, timeout_scope
from craned.hooks.processes import EndedKept
from cranehooks.execution.spawner_client import QueueFullError
from cranehooks.model.ids import JobId, RunId
from cranehooks.model.job import ExitStatus, JobEnd, JobOnNode
from cranehooks.model.limits import Limits
from cranehooks.model.outcome import OK, Outcome, OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookKey, HookRun, HookSettings, RunSpec, TimeoutScope
from cranehooks.plan import Plan, PlanFailure
from tests.support.eventually import eventually_async
from tests.unit.craned.test_attempt import NODE
from tests.unit.craned.test_recovery import JOB


@dataclass
class FakeSpawner:
    """Runs end when they are stopped or let go."""

    specs: list[RunSpec] = field(default_factory=list)
    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: set[RunId] = field(default_factory=set)
    is_full: bool = False

    async def run(self, spec: RunSpec) -> HookRun:
        if self.is_full:
            raise QueueFullError("4096 wait")
        self.specs.append(spec)
        await self.may_end.wait()
        outcome = Outcome(OutcomeKind.STOPPED) if spec.key.run_id in self.stopped else OK
        return HookRun(spec.key, "", 1.0, 1.0, outcome)

    def stop(self, run_id: RunId) -> bool:
        self.stopped.add(run_id)
        self.may_end.set()
        return True


@dataclass
class FakeObserver:
    seen: list[str] = field(default_factory=list)

    def started(self, point: HookPoint) -> None:
        self.seen.append(f"started {point.value}")

    def ended(self, run: HookRun) -> None:
        self.seen.append(f"ended {run.outcome}")


@dataclass
class FakeKept:
    ended: EndedKept = EndedKept()
    asked: list[JobId] = field(default_factory=list)

    async def end_kept(self, job: JobOnNode) -> EndedKept:
        self.asked.append(job.job_id)
        return self.ended


@dataclass
class FakeExtern:
    """An extern step that runs what it is asked for at once."""

    gone: str = ""
    """Why there is none."""
    dies_before_it_runs: str = ""
    place: str | None = "/sys/fs/cgroup/job_1/step_extern"
    specs: list[RunSpec] = field(default_factory=list)
    stopped: list[HookKey] = field(default_factory=list)
    outcome: Outcome = OK
    may_end: asyncio.Event = field(default_factory=asyncio.Event)

    async def ready(self, job: JobOnNode, stop: asyncio.Event) -> str | None:
        del job, stop
        if self.gone:
            raise ExternGoneError(self.gone)
        return self.place

    async def run(self, job: JobOnNode, spec: RunSpec) -> HookRun:
        del job
        if self.dies_before_it_runs:
            raise ExternGoneError(self.dies_before_it_runs)
        self.specs.append(spec)
        await self.may_end.wait()
        return HookRun(spec.key, spec.user, 1.0, 0.5, self.outcome, notes=spec.notes)

    async def resume(self, key: HookKey, user: str) -> HookRun:
        await self.may_end.wait()
        return HookRun(key, user, 1.0, 0.5, self.outcome)

    def stop(self, key: HookKey) -> None:
        self.stopped.append(key)
        self.outcome = Outcome(OutcomeKind.STOPPED)
        self.may_end.set()


@dataclass
class Rig:
    spawner: FakeSpawner = field(default_factory=FakeSpawner)
    observer: FakeObserver = field(default_factory=FakeObserver)
    kept: FakeKept = field(default_factory=FakeKept)
    extern: FakeExtern = field(default_factory=FakeExtern)
    intents: int = 0

    def __post_init__(self) -> None:
        self.hooks = NodeHooks(NODE, "root", self.spawner, self.observer, self.kept, self.extern)

    async def started(self) -> None:
        self.intents += 1

    async def prolog(
        self, settings: HookSettings, stop: asyncio.Event | None = None, job_id: int = 1, memory_bytes: int = 0
    ) -> HookRun:
        job = replace(JOB, job_id=JobId(job_id), share=replace(JOB.share, memory_bytes=memory_bytes))
        return await self.hooks.run_prolog(job, settings, started=self.started, stop=stop or asyncio.Event())

    async def epilog(self, settings: HookSettings, unkillable: tuple[str, ...] = ()) -> HookRun | None:
        return await self.hooks.run_epilog(JOB, settings, JobEnd(ExitStatus(3)), unkillable, started=self.started)


def settings_of(tmp_path: Path, *, profile: str = "crane-requeue", flags: tuple[str, ...] = (), **points: str) -> HookSettings:
    patterns: Mapping[HookPoint, tuple[str, ...]] = {HookPoint[name.upper()]: (pattern,) for name, pattern in points.items()}
    timeouts = dict.fromkeys(HookPoint, 60.0)
    return HookSettings(profile, patterns, timeouts, frozenset(flags), config_dir=str(tmp_path))


async def test_without_scripts_a_prolog_is_ok_and_there_is_no_epilog(tmp_path: Path) -> None:
    rig, settings = Rig(), settings_of(tmp_path, prolog=f"{tmp_path}/none*")
    assert (await rig.prolog(settings)).outcome.ok
    assert await rig.epilog(settings) is None
    assert (rig.intents, rig.observer.seen) == (0, [])


async def test_what_the_spawner_is_asked(tmp_path: Path) -> None:
    rig = Rig()
    rig.spawner.may_end.set()
    settings = settings_of(tmp_path, prolog="/hooks/p.sh", epilog="/hooks/e.sh")
    run = await rig.prolog(settings)
    assert (run.user, rig.intents, rig.observer.seen) == ("root", 1, ["started Prolog", "ended ok"])
    await rig.epilog(settings)
    prolog, epilog = rig.spawner.specs
    assert (prolog.scripts, prolog.timeout_s, prolog.timeout_scope) == (("/hooks/p.sh",), 60.0, TimeoutScope.LIST)
    assert prolog.environment["CRANE_JOB_ID"] == "1"
    assert "A" not in prolog.environment
    assert "PATH" not in prolog.environment
    assert epilog.environment["CRANE_JOB_EXIT_CODE"] == str(3 << 8)


async def test_a_stop_reaches_the_run(tmp_path: Path) -> None:
    rig, stop = Rig(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(rig.prolog(settings_of(tmp_path, prolog="/p.sh"), stop))
        await eventually_async(lambda: rig.spawner.specs)
        stop.set()
    assert running.result().outcome.kind is OutcomeKind.STOPPED
    assert (await rig.prolog(settings_of(tmp_path, prolog="/p.sh"), stop)).outcome.kind is OutcomeKind.STOPPED
    assert len(rig.spawner.specs) == 1


async def test_serial_hooks_wait_for_one_another_and_others_do_not(tmp_path: Path) -> None:
    rig = Rig()
    serial = settings_of(tmp_path, flags=("Serial",), prolog="/p.sh")
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(rig.prolog(serial))
        await eventually_async(lambda: len(rig.spawner.specs) == 1)
        second = group.create_task(rig.prolog(serial, stop, 2))
        third = group.create_task(rig.prolog(serial, job_id=3))
        group.create_task(rig.prolog(settings_of(tmp_path, prolog="/p.sh"), job_id=4))
        await eventually_async(lambda: len(rig.spawner.specs) == 2)
        stop.set()
        await second
        assert rig.intents == 2
        rig.spawner.may_end.set()
    assert second.result().outcome.kind is OutcomeKind.STOPPED
    assert third.result().outcome.ok
    assert [spec.key.job_id for spec in rig.spawner.specs] == [1, 4, 3]


async def test_a_hook_that_cannot_be_planned_or_queued_failed(tmp_path: Path) -> None:
    rig = Rig()
    run = await rig.prolog(settings_of(tmp_path, profile="slurm", prolog=f"{tmp_path}/none*"))
    assert (run.outcome.kind, rig.intents) == (OutcomeKind.SPAWN, 0)
    assert "no file matches" in run.outcome.detail
    rig.spawner.is_full = True
    run = await rig.prolog(settings_of(tmp_path, prolog="/p.sh"))
    assert run.outcome.kind is OutcomeKind.SPAWN


@pytest.mark.parametrize("pattern", ["/e.sh", "/nothing*"])
async def test_what_survived_kill_makes_the_epilog_unkillable(tmp_path: Path, pattern: str) -> None:
    rig = Rig()
    rig.spawner.may_end.set()
    run = await rig.epilog(settings_of(tmp_path, epilog=pattern), ("77 dd",))
    assert run is not None
    assert run.outcome.kind is OutcomeKind.UNKILLABLE
    assert "77 dd" in run.outcome.detail


def test_scripts_are_found_when_a_run_begins_and_ordered_by_the_profile(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, prolog=f"{tmp_path}/*.sh")
    assert planned(settings, HookPoint.PROLOG) == Plan(())
    for name in ("10.sh", "20.sh"):
        (tmp_path / name).touch()
    assert planned(settings, HookPoint.PROLOG) == Plan((f"{tmp_path}/20.sh", f"{tmp_path}/10.sh"))
    assert planned(settings, HookPoint.EPILOG) == Plan(())
    assert isinstance(planned(settings_of(tmp_path, profile="slurm", prolog="/no*"), HookPoint.PROLOG), PlanFailure)
    assert timeout_scope(settings_of(tmp_path, profile="slurm")) is TimeoutScope.SCRIPT


async def test_what_a_directory_holds_besides_is_noted(tmp_path: Path) -> None:
    directory = tmp_path / "prolog.d"
    directory.mkdir()
    for name, mode in (("10-a", 0o755), ("README", 0o644)):
        (directory / name).write_text("#!/bin/sh\n")
        (directory / name).chmod(mode)
    hooks = HookSettings("sunk", {HookPoint.PROLOG: (str(directory),)}, {HookPoint.PROLOG: 5.0})
    rig = Rig()
    rig.spawner.may_end.set()
    await rig.prolog(hooks)
    (spec,) = rig.spawner.specs
    assert spec.scripts == (f"{directory}/10-a",)
    assert spec.notes == (f"passed over in {directory}: README (not executable)",)


@pytest.mark.parametrize("pattern", ["/e.sh", "/nothing*"])
async def test_what_prolog_kept_ends_with_the_epilog_and_is_named(tmp_path: Path, pattern: str) -> None:
    rig = Rig()
    rig.spawner.may_end.set()
    rig.kept.ended = EndedKept(("7 exporter", "8 dd"), ("8 dd",))
    run = await rig.epilog(settings_of(tmp_path, epilog=pattern))
    assert run is not None
    assert run.notes == ("kept by Prolog and killed now: 7 exporter, 8 dd",)
    assert run.outcome == Outcome(OutcomeKind.UNKILLABLE, 0, "survived KILL: 8 dd")
    assert rig.kept.asked == [JOB.job_id]
    await rig.prolog(settings_of(tmp_path, prolog="/p.sh"))
    assert rig.kept.asked == [JOB.job_id], "a Prolog ends nothing"


async def test_the_spawner_is_told_which_scripts_may_keep_processes(tmp_path: Path) -> None:
    rig = Rig()
    rig.spawner.may_end.set()
    for name in ("10-a", "20-b"):
        (tmp_path / name).touch()
    settings = replace(settings_of(tmp_path, prolog=f"{tmp_path}/*"), keep_processes={HookPoint.PROLOG: (f"{tmp_path}/20-*",)})
    await rig.prolog(settings)
    await rig.prolog(replace(settings, keep_processes={HookPoint.PROLOG: ()}))
    await rig.prolog(replace(settings, keep_processes={HookPoint.EPILOG: ()}))
    every = {f"{tmp_path}/10-a", f"{tmp_path}/20-b"}
    assert [set(spec.keeps) for spec in rig.spawner.specs] == [{f"{tmp_path}/20-b"}, every, set()]


async def test_the_spawner_is_told_the_limits_of_the_point(tmp_path: Path) -> None:
    rig = Rig()
    rig.spawner.may_end.set()
    settings = replace(settings_of(tmp_path, prolog="/p.sh", epilog="/e.sh"), limits={HookPoint.PROLOG: Limits(pids=7)})
    await rig.prolog(settings)
    await rig.epilog(settings)
    assert [spec.limits for spec in rig.spawner.specs] == [Limits(pids=7), None]


@pytest.mark.parametrize(("flags", "measured"), [(("Contain", "Alloc"), [True, False]), (("Alloc",), [False, False])])
async def test_what_a_hook_takes_of_its_jobs_memory_is_measured(
    tmp_path: Path, flags: tuple[str, ...], measured: list[bool]
) -> None:
    rig = Rig()
    rig.spawner.may_end.set()
    settings = replace(
        settings_of(tmp_path, flags=flags, prolog="/p.sh", epilog="/e.sh"), limits={HookPoint.PROLOG: Limits(pids=7)}
    )
    await rig.prolog(settings, memory_bytes=64 << 20)
    await rig.epilog(settings)
    prolog, epilog = (spec.limits or Limits() for spec in rig.spawner.specs)
    assert [prolog.measures_memory, epilog.measures_memory] == measured
    assert prolog.pids == 7


async def test_contain_has_the_spawner_run_prolog_in_the_extern_step_and_epilog_elsewhere(tmp_path: Path) -> None:
    rig = Rig()
    rig.spawner.may_end.set()
    settings = settings_of(tmp_path, flags=("Contain", "Alloc"), prolog="/hooks/p.sh", epilog="/hooks/e.sh")
    assert (await rig.prolog(settings)).outcome.ok
    assert await rig.epilog(settings) is not None
    prolog, epilog = rig.spawner.specs
    assert (prolog.cgroup, epilog.cgroup) == (rig.extern.place, None)
    assert rig.extern.specs == []


async def test_run_in_job_has_the_extern_step_run_both_with_the_same_settings(tmp_path: Path) -> None:
    rig = Rig()
    rig.extern.may_end.set()
    rig.spawner.may_end.set()
    flags = ("RunInJob", "Contain", "Alloc")
    settings = settings_of(tmp_path, flags=flags, prolog="/hooks/p.sh", epilog="/hooks/e.sh")
    prolog, epilog = await rig.prolog(settings), await rig.epilog(settings)
    assert epilog is not None
    assert (prolog.user, prolog.outcome, epilog.outcome) == ("root", OK, OK)
    assert rig.spawner.specs == []
    assert rig.observer.seen == ["started Prolog", "ended ok", "started Epilog", "ended ok"]
    plain = Rig()
    plain.spawner.may_end.set()
    await plain.prolog(replace(settings, flags=frozenset()))
    await plain.epilog(replace(settings, flags=frozenset()))
    assert [replace(spec, cgroup=None) for spec in rig.extern.specs] == plain.spawner.specs


async def test_without_an_extern_step_a_prolog_fails_and_an_epilog_runs_outside_of_the_job_and_says_so(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, flags=("RunInJob", "Contain", "Alloc"), prolog="/hooks/p.sh", epilog="/hooks/e.sh")
    for rig in (Rig(extern=FakeExtern(gone="supervisor died")), Rig(extern=FakeExtern(dies_before_it_runs="supervisor died"))):
        rig.spawner.may_end.set()
        prolog = await rig.prolog(settings)
        assert prolog.outcome.kind is OutcomeKind.SPAWN
        assert "supervisor died" in prolog.outcome.detail
        epilog = await rig.epilog(settings)
        assert epilog is not None
        assert epilog.outcome.ok
        assert [spec.key.point for spec in rig.spawner.specs] == [HookPoint.EPILOG]
        assert "outside the job's cgroup, for want of its extern step: supervisor died" in rig.spawner.specs[0].notes[0]


async def test_contain_without_scripts_still_waits_for_the_extern_step(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, flags=("Contain", "Alloc"))
    assert (await Rig().prolog(settings)).outcome.ok
    assert (await Rig(extern=FakeExtern(gone="no cgroup")).prolog(settings)).outcome.kind is OutcomeKind.SPAWN


def has_started(rig: Rig) -> bool:
    return rig.observer.seen == ["started Prolog"]


async def test_a_hook_in_the_job_is_stopped_there_also_when_it_was_resumed(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, flags=("RunInJob", "Contain", "Alloc"), prolog="/hooks/p.sh")
    for resumed in (False, True):
        rig, stop = Rig(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            prolog = group.create_task(rig.hooks.run_prolog(JOB, settings, started=rig.started, stop=stop, resumed=resumed))
            await eventually_async(partial(has_started, rig))
            stop.set()
        assert prolog.result().outcome.kind is OutcomeKind.STOPPED
        assert [key.point for key in rig.extern.stopped] == [HookPoint.PROLOG]
        assert rig.intents == (0 if resumed else 1)
