"""The controller and its disk: what an answer promises, what goes with age, and what happens when nothing can be written."""

import asyncio
import os
import sqlite3
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from crane.hooks.v1 import craned_service_pb2 as craned
from crane.hooks.v1 import ctld_service_pb2 as ctld
from crane.hooks.v1 import job_pb2
from cranehooks.model.ids import Attempt, JobId
from cranehooks.model.outcome import OK, Outcome, OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookKey, HookRun, ScriptRun
from cranehooks.wire import hook_run_to_wire
from cranekit.rpc.status import error_from_rpc
from tests.component.cranectld.conftest import ALICE, ROOT, Site, batch, becomes, status, submit
from tests.support.eventually import eventually_async
from tests.support.metrics import scrape

Calls = dict[str, Callable[[], Awaitable[Any]]]

READS = {"FollowJob", "ListJobs", "GetJob", "ListNodes", "GetNode", "WatchEvents", "ListBreakers", "GetCluster", "BackupStore"}
READS |= {"WatchDecisions"}
PASSING = {"Heartbeat", "SignalStep", "SignalJobStep"}
"""Nothing of these is kept."""


def store_of(site: Site) -> Path:
    return site.directory / "state" / "cranectld.db"


@contextmanager
def locked(site: Site) -> Iterator[None]:
    """Nothing can be committed meanwhile; the controller waits some seconds for it before it calls that a failure."""
    with closing(sqlite3.connect(store_of(site), isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


async def answered(calls: Calls) -> set[str]:
    """Which of these calls were answered although nothing could be committed."""
    names: set[str] = set()

    async def make(name: str, call: Callable[[], Awaitable[Any]]) -> None:
        try:
            await call()
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return
            names.add(f"{name}: {error.details()}")
        else:
            names.add(name)

    async with asyncio.TaskGroup() as tasks:
        for name, call in calls.items():
            tasks.create_task(make(name, call))
    return names


def changing(*services: str) -> set[str]:
    """Every method that changes something, by the services' descriptors: a new one cannot be forgotten."""
    descriptors = [ctld.DESCRIPTOR.services_by_name[service] for service in services]
    return {method.name for descriptor in descriptors for method in descriptor.methods} - READS - PASSING


def launch_run(job_id: int) -> Any:
    key = HookKey(HookPoint.CRUN_PROLOG, JobId(job_id), Attempt(1))
    return hook_run_to_wire(HookRun(key, "alice", 1.0, 0.1, OK, (ScriptRun("/p.sh", OK, 1.0, 0.1, "ab" * 32),)))


async def test_nothing_is_answered_before_it_is_on_disk(site: Site) -> None:
    site.hooks = "  HoldOnPrologFail: true\n"
    site.launcher_grace_s = "60"
    await site.start()
    first, second = await site.node("cn01"), await site.node("cn02")
    alice, root = await site.as_user(), await site.as_user(ROOT)
    held = await submit(alice, nodelist="cn02")
    command = await second.expect(craned.RunStepRequest, held)
    await second.prolog(command.job, Outcome(OutcomeKind.EXIT, 3))
    await second.release_when_told(held)
    await becomes(alice, held, job_pb2.JOB_STATE_HELD)
    running = await submit(alice, nodelist="cn01")
    step = await first.expect(craned.RunStepRequest, running)
    allocation = await submit(alice, kind=job_pb2.JOB_KIND_ALLOCATION, script="", nodelist="cn01")
    finished = await submit(alice, kind=job_pb2.JOB_KIND_ALLOCATION, script="", nodelist="cn01")
    for job_id in (allocation, finished):
        await becomes(alice, job_id, job_pb2.JOB_STATE_RUNNING)
    wanted = job_pb2.StepSpec(argv=["true"], cwd="/")
    steps = [
        await alice.CreateStep(ctld.CreateStepRequest(job_id=allocation, spec=wanted, request_id=f"s{number}"))
        for number in range(2)
    ]
    report = ctld.NodeReport(report_id=1, step_started=ctld.StepStarted(job_id=running, attempt=1, step_id="batch"))
    s = 2.0
    calls: Calls = {
        "SubmitJob": lambda: alice.SubmitJob(ctld.SubmitJobRequest(spec=batch(), request_id="new"), timeout=s),
        "CreateStep": lambda: alice.CreateStep(
            ctld.CreateStepRequest(job_id=allocation, spec=wanted, request_id="s9"), timeout=s
        ),
        "StartStep": lambda: alice.StartStep(
            ctld.StartStepRequest(job_id=allocation, attempt=1, step_id=steps[0].spec.step_id), timeout=s
        ),
        "CancelStep": lambda: alice.CancelStep(
            ctld.CancelStepRequest(job_id=allocation, attempt=1, step_id=steps[1].spec.step_id), timeout=s
        ),
        "RecordLaunchHook": lambda: alice.RecordLaunchHook(ctld.RecordLaunchHookRequest(run=launch_run(allocation)), timeout=s),
        "CompleteAllocation": lambda: alice.CompleteAllocation(ctld.CompleteAllocationRequest(job_id=finished), timeout=s),
        "CancelJob": lambda: alice.CancelJob(ctld.CancelJobRequest(job_ids=[running]), timeout=s),
        "ReleaseHold": lambda: alice.ReleaseHold(ctld.ReleaseHoldRequest(job_ids=[held]), timeout=s),
        "DrainNodes": lambda: root.DrainNodes(ctld.DrainNodesRequest(nodes="cn01", reason="disk"), timeout=s),
        "ResumeNodes": lambda: root.ResumeNodes(ctld.ResumeNodesRequest(nodes="cn02"), timeout=s),
        "ResetBreaker": lambda: root.ResetBreaker(ctld.ResetBreakerRequest(), timeout=s),
        "RegisterNode": lambda: second.reports.RegisterNode(
            ctld.RegisterNodeRequest(node="cn02", instance="i2", boot_id="b2", address=second.address), timeout=s
        ),
        "Report": lambda: first.reports.Report(ctld.ReportRequest(node="cn01", instance="i1", reports=[report]), timeout=s),
    }
    assert set(calls) == changing("ControllerService", "NodeReportService")
    with locked(site):
        assert await answered(calls) == set()
    del step
    # Asked again, all is as it was asked for: the ids are those of the first time.
    answer = await alice.SubmitJob(ctld.SubmitJobRequest(spec=batch(), request_id="new"), timeout=15)
    again = await alice.SubmitJob(ctld.SubmitJobRequest(spec=batch(), request_id="new"), timeout=15)
    assert answer.job_ids == again.job_ids
    assert (await alice.ListJobs(ctld.ListJobsRequest())).jobs[-1].job_id == answer.job_ids[0]


async def test_nothing_is_answered_to_a_scheduler_before_it_is_on_disk(site: Site) -> None:
    site.extra = "Scheduler: {Kind: external}\n"
    await site.start()
    await site.node("cn01")
    scheduler = await site.as_scheduler()
    spec = batch(script="", uid=ALICE.uid, gid=ALICE.gid, user="alice")

    async def allocate(job_id: int, timeout_s: float) -> Any:
        request = ctld.AllocateJobRequest(job_id=job_id, attempt=1, spec=spec, nodes=["cn01"])
        return await scheduler.AllocateJob(request, timeout=timeout_s)

    for job_id in (5, 6):
        await allocate(job_id, 10)
    step = job_pb2.StepSpec(step_id="0", argv=["true"], cwd="/", ntasks=1)
    calls: Calls = {
        "AllocateJob": lambda: allocate(7, 2),
        "StartJobStep": lambda: scheduler.StartJobStep(ctld.StartJobStepRequest(job_id=5, attempt=1, spec=step), timeout=2),
        "ReleaseAllocation": lambda: scheduler.ReleaseAllocation(ctld.ReleaseAllocationRequest(job_id=6, attempt=1), timeout=2),
    }
    assert set(calls) == changing("SchedulerService")
    with locked(site):
        assert await answered(calls) == set()


async def test_step_that_is_asked_for_again_after_a_restart_is_the_same(site: Site) -> None:
    site.launcher_grace_s = "60"
    await site.start()
    await site.node("cn01")
    alice = await site.as_user()
    job_id = await submit(alice, kind=job_pb2.JOB_KIND_ALLOCATION, script="")
    await becomes(alice, job_id, job_pb2.JOB_STATE_RUNNING)
    request = ctld.CreateStepRequest(job_id=job_id, spec=job_pb2.StepSpec(argv=["true"], cwd="/"), request_id="mine")
    before = await alice.CreateStep(request)
    assert site.program is not None
    site.program.kill()
    await site.start()
    alice = await site.as_user()
    after = await alice.CreateStep(request)
    assert after.spec.step_id == before.spec.step_id
    other = await alice.CreateStep(ctld.CreateStepRequest(job_id=job_id, spec=request.spec, request_id="another"))
    assert other.spec.step_id != before.spec.step_id


async def test_what_is_old_goes_by_itself(site: Site) -> None:
    site.extra = "Retention: {Jobs: 1s, Events: 2, Requests: 1s}\n"
    await site.start()
    alice = await site.as_user()
    job_id = await submit(alice)
    kept = await submit(alice)
    await alice.CancelJob(ctld.CancelJobRequest(job_ids=[job_id]))

    async def is_gone() -> bool:
        return [job.job_id for job in (await alice.ListJobs(ctld.ListJobsRequest())).jobs] == [kept]

    await eventually_async(is_gone, deadline_s=20)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await status(alice, job_id)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    def rows(table: str) -> int:
        with closing(sqlite3.connect(store_of(site))) as connection:
            number: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            return number

    await eventually_async(lambda: rows("requests") == 0, deadline_s=20)
    await eventually_async(lambda: rows("events") == 1, deadline_s=20)
    assert (await status(alice, kept)).history, "a job that waits keeps its history"


async def test_backup_is_for_administrators(site: Site) -> None:
    await site.start()
    alice, root = await site.as_user(), await site.as_user(ROOT)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in alice.BackupStore(ctld.BackupStoreRequest()):
            pass
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    messages = [message async for message in root.BackupStore(ctld.BackupStoreRequest())]
    assert messages[0].size_bytes == sum(len(message.piece) for message in messages)
    assert len(messages[-1].sha256) == 64


# ---- a disk that refuses


@contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """A file system of 24 MiB at a directory, which a file can fill."""
    directory.mkdir(mode=0o700)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "crane-test", directory], check=False)
    if mounted.returncode:
        pytest.skip("mounting a file system needs more rights")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def fill(directory: Path) -> Path:
    path = directory / "other-data"
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    return path


@pytest.fixture
def disk(site: Site) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("a file system of its own needs root")
    with small_disk(site.directory / "state") as directory:
        yield directory


async def metric(site: Site, name: str) -> float:
    assert site.program is not None
    return (await asyncio.to_thread(scrape, site.program.ready["metrics"]))[name]


async def refused(call: Awaitable[Any]) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value)


async def test_full_disk_takes_no_new_work_keeps_what_was_promised_and_recovers(disk: Path, site: Site) -> None:
    await site.start()
    node = await site.node("cn01")
    alice, root = await site.as_user(), await site.as_user(ROOT)
    running = await submit(alice, cpus_per_task=4.0)
    step = await node.expect(craned.RunStepRequest, running)
    waiting = await submit(alice, cpus_per_task=4.0)
    filler = fill(disk)
    environment = {"FILL": "x" * 500_000}

    async def big(request_id: str) -> Any:
        return await alice.SubmitJob(ctld.SubmitJobRequest(spec=batch(environment=environment), request_id=request_id))

    first = await refused(big("first"))
    assert first.code.name == "UNAVAILABLE"
    assert "the job was not accepted: cannot write" in first.message
    assert "full" in first.message
    assert first.retry_after_s == 1.0
    for call in (
        big("second"),
        root.DrainNodes(ctld.DrainNodesRequest(nodes="cn02", reason="because")),
        root.ReleaseHold(ctld.ReleaseHoldRequest(job_ids=[waiting])),
    ):
        error = await refused(call)
        assert (error.code.name, "takes no new work now: cannot write" in error.message) == ("UNAVAILABLE", True)
    assert await metric(site, "crane_store_writable") == 0
    assert await metric(site, "crane_store_backlog") > 0
    assert site.program is not None
    assert '"store.write_failed"' in site.program.log.read_text() or "store.write_failed" in site.program.log.read_text()
    # Looking goes on, and the nodes stay up. What a node reports is not acknowledged, so that it tells it again.
    assert {job.job_id for job in (await alice.ListJobs(ctld.ListJobsRequest())).jobs} >= {running, waiting}
    await node.heartbeat()
    report = ctld.NodeReport(
        report_id=1,
        step_ended=ctld.StepEnded(
            job_id=running,
            attempt=1,
            step_id="batch",
            tasks=[job_pb2.TaskEnd(task_id=0, exit=job_pb2.ExitStatus(code=0))],
        ),
    )
    told = ctld.ReportRequest(node="cn01", instance="i1", reports=[report])
    assert (await refused(node.reports.Report(told))).code.name == "UNAVAILABLE"
    assert not [command for command in node.told if isinstance(command, craned.ReleaseJobRequest)], "not before it is on disk"

    filler.unlink()

    async def heard() -> bool:
        try:
            return (await node.reports.Report(told)).acknowledged == 1
        except grpc.aio.AioRpcError as error:
            return error.code() is not grpc.StatusCode.UNAVAILABLE

    await eventually_async(heard, deadline_s=20)
    node.next_report = 2
    await node.release_when_told(running)
    await becomes(alice, running, job_pb2.JOB_STATE_COMPLETED)
    again = await node.expect(craned.RunStepRequest, waiting)
    await node.step_ended(again)
    await node.release_when_told(waiting)
    await becomes(alice, waiting, job_pb2.JOB_STATE_COMPLETED)
    assert await metric(site, "crane_store_writable") == 1
    assert "store.writable_again" in site.program.log.read_text()
    # What was refused has not run; what is asked again is a job of its own.
    jobs = {job.job_id: job for job in (await alice.ListJobs(ctld.ListJobsRequest())).jobs}
    others = [job for number, job in jobs.items() if number not in (running, waiting)]
    assert all(job.state == job_pb2.JOB_STATE_CANCELLED and "could not be written" in job.reason for job in others)
    accepted = (await big("first")).job_ids[0]
    assert accepted not in {job.job_id for job in others}
    del step


async def test_node_that_registers_at_a_full_disk_is_not_lost(disk: Path, site: Site) -> None:
    await site.start()
    node = await site.node("cn01")
    alice = await site.as_user()
    job_id = await submit(alice)
    await node.expect(craned.RunStepRequest, job_id)
    filler = fill(disk)
    await refused(alice.SubmitJob(ctld.SubmitJobRequest(spec=batch(environment={"FILL": "x" * 500_000}))))
    node.instance = "i2"
    begun = asyncio.get_running_loop().time()
    while asyncio.get_running_loop().time() < begun + 2.5:  # NodeDownTimeout is 1.5
        assert (await refused(node.register())).code.name == "UNAVAILABLE"
    assert (await status(alice, job_id)).state == job_pb2.JOB_STATE_RUNNING
    filler.unlink()

    async def registered() -> bool:
        try:
            await node.register()
        except grpc.aio.AioRpcError:
            return False
        return True

    await eventually_async(registered, deadline_s=20)
    await node.expect(craned.RunStepRequest, job_id, number=2)


# ---- a queue that is full, and a long one


async def test_full_queue_says_when_to_come_again(site: Site) -> None:
    site.extra = "MaxQueuedJobs: 3\n"
    await site.start()
    alice = await site.as_user()
    for _ in range(3):
        await submit(alice)
    full = await refused(alice.SubmitJob(ctld.SubmitJobRequest(spec=batch(), request_id="r")))
    assert (full.code.name, full.retry_after_s) == ("RESOURCE_EXHAUSTED", 5.0)
    assert "the queue is full (3 jobs wait, MaxQueuedJobs 3)" in full.message
    never = await refused(alice.SubmitJob(ctld.SubmitJobRequest(spec=batch(), array="0-3")))
    assert never.code.name == "INVALID_ARGUMENT", "more than may wait: no patience helps"
    await alice.CancelJob(ctld.CancelJobRequest(job_ids=[1]))
    assert (await alice.SubmitJob(ctld.SubmitJobRequest(spec=batch(), request_id="r"))).job_ids == [4]


@pytest.mark.long
async def test_ten_thousand_jobs_wait_and_the_controller_works_on(site: Site) -> None:
    await site.start()
    node = await site.node("cn01")
    alice = await site.as_user()
    first = await submit(alice, cpus_per_task=4.0)
    step = await node.expect(craned.RunStepRequest, first)
    assert site.program is not None

    def resident_bytes() -> int:
        assert site.program is not None
        fields = Path(f"/proc/{site.program.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGESIZE")

    before = resident_bytes()
    answer = await alice.SubmitJob(
        ctld.SubmitJobRequest(spec=batch(cpus_per_task=4.0), array="0-9999", request_id="many"), timeout=110
    )
    assert len(answer.job_ids) == 10_000
    assert (resident_bytes() - before) / 10_000 < 20_000, "bytes of memory per job that waits"
    # One after another: each end places the next one.
    for job_id in (first, *answer.job_ids[:50]):
        step = await node.expect(craned.RunStepRequest, job_id)
        await node.step_ended(step)
        await node.release_when_told(job_id)
    await node.expect(craned.RunStepRequest, answer.job_ids[50])
    await node.heartbeat()
