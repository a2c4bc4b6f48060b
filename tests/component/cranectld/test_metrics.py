"""What the controller tells Prometheus of a drain, a requeue and a job that ends."""

import asyncio

from crane.hooks.v1 import craned_service_pb2 as craned
from crane.hooks.v1 import job_pb2
from cranehooks.model.outcome import Outcome, OutcomeKind
from tests.component.cranectld.conftest import Site, becomes, submit
from tests.support.metrics import scrape


async def test_drains_decisions_jobs_nodes_and_calls_are_counted(site: Site) -> None:
    site.hooks = f"  CranectldProlog: {site.script('ctld.sh', 'exit 0')}\n"
    await site.start()
    first, second = await site.node("cn01"), await site.node("cn02")
    alice = await site.as_user()
    job_id = await submit(alice)
    command = await first.expect(craned.RunStepRequest, job_id)
    await first.prolog(command.job, Outcome(OutcomeKind.EXIT, 3))
    await first.release_when_told(job_id)
    retry = await second.expect(craned.RunStepRequest, job_id)
    await second.step_ended(retry)
    await second.release_when_told(job_id)
    await becomes(alice, job_id, job_pb2.JOB_STATE_COMPLETED)

    assert site.program is not None
    metrics = await asyncio.to_thread(scrape, site.program.ready["metrics"])

    assert metrics['crane_drains_total{cause="hooks"}'] == 1
    assert metrics['crane_decisions_total{decision="requeue"}'] == 1
    assert metrics['crane_jobs{state="completed"}'] == 1
    assert metrics['crane_jobs{state="pending"}'] == 0
    assert metrics['crane_nodes{state="drained"}'] == 1
    assert metrics['crane_hook_runs_total{outcome="ok",point="CranectldProlog",script="ctld.sh"}'] == 2
    assert metrics['crane_hook_run_duration_seconds_count{point="CranectldProlog",script="ctld.sh"}'] == 2
    calls = {name: value for name, value in metrics.items() if name.startswith("grpc_server_handled_total")}
    assert sum(value for name, value in calls.items() if 'grpc_method="SubmitJob"' in name and 'grpc_code="OK"' in name) == 1
    assert any(name.startswith("crane_build_info") for name in metrics)
    assert not any(label in name for name in metrics for label in ("job_id=", "user=", "reason="))
