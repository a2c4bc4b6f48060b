"""The flags that change when Prologs run, and how many at once."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.eventually import eventually
from tests.support.scripted_cluster import ScriptedCluster


@contextmanager
def flagged(
    *flags: str, points: tuple[str, ...] = ("Prolog", "Epilog", "TaskProlog"), profile: str = "crane-requeue"
) -> Iterator[ScriptedCluster]:
    with ScriptedCluster(points=points, hooks={"PrologFlags": ", ".join(flags)}, Profile=profile) as cluster:
        yield cluster
        cluster.settle()


def test_alloc_runs_prologs_on_all_nodes_before_the_job_runs() -> None:
    with flagged("Alloc") as stage:
        gate = stage.gate("alloc")
        stage.plan("alloc", "Prolog", gate.line, node="cn02")
        stage.submit("alloc", "true", "-N2", "-n2")
        gate.await_arrivals()
        assert stage.job("alloc").state == "Configuring"
        assert stage.calls("alloc", "TaskProlog") == []
        gate.open()
        assert stage.ended("alloc").state == "Completed"
        assert sorted(call.node for call in stage.calls("alloc", "Prolog")) == ["cn01", "cn02"]
        # Where no step runs it runs as well, and a failure ends an interactive job before its command starts.
        stage.plan("refused", "Prolog", "exit 3", node="cn02")
        result = stage.run("calloc", "-N2", "echo", "never", label="refused")
        assert (result.returncode, result.stdout) == (1, "")
        assert [node.name for node in stage.nodes().values() if node.drains] == ["cn02"]


def test_nohold_lets_the_job_run_while_prologs_do() -> None:
    with flagged("NoHold") as stage:
        gate = stage.gate("nohold")
        stage.plan("nohold", "Prolog", gate.line, node="cn02")
        with stage.start(
            "calloc", "-N2", "sh", "-c", "crun -w cn01 echo here; crun -w cn02 echo there", label="nohold"
        ) as calloc:
            gate.await_arrivals()
            assert stage.await_state("nohold", "Running").state == "Running"
            assert calloc.stdout is not None
            assert calloc.stdout.readline() == b"here\n"
            assert {call.node for call in stage.calls("nohold", "TaskProlog")} == {"cn01"}
            gate.open()
            assert calloc.stdout.readline() == b"there\n"
            assert calloc.wait(60) == 0


def test_serial_runs_one_prolog_at_a_time_on_a_node() -> None:
    with flagged("Serial") as stage:
        gates = {label: stage.gate(label) for label in ("one", "two")}
        for label, gate in gates.items():
            stage.plan(label, "Prolog", gate.line)
        stage.submit("one", "true", "-w", "cn01")
        gates["one"].await_arrivals()
        stage.submit("two", "true", "-w", "cn01")
        stage.submit("other-node", "true", "-w", "cn02")
        assert stage.ended("other-node").state == "Completed"
        assert gates["two"].pids == []
        gates["one"].open()
        gates["two"].await_arrivals()
        gates["two"].open()
        assert stage.ended("two").state == "Completed"


def test_forced_requeue_runs_again_what_asked_not_to() -> None:
    with flagged("ForceRequeueOnFail") as stage:
        stage.plan("forced", "Prolog", "exit 3", node="cn01")
        stage.submit("forced", "true", "--no-requeue")
        job = stage.ended("forced")
        assert (job.state, job.attempt, job.nodes) == ("Completed", 2, ("cn02",))


def test_deferred_batch_script_starts_after_the_slowest_node() -> None:
    with flagged("deferbatch", profile="slurm") as stage:
        gate = stage.gate("deferred")
        stage.plan("deferred", "Prolog", gate.line, node="cn02")
        stage.submit("deferred", f"echo script >> {stage.work}/order", "-N2", "-n2")
        gate.await_arrivals()
        assert stage.job("deferred").state == "Configuring"
        assert not (stage.work / "order").exists()
        (stage.work / "order").write_text("prolog\n")
        (stage.work / "order").chmod(0o666)
        gate.open()
        assert stage.ended("deferred").state == "Completed"
        assert (stage.work / "order").read_text() == "prolog\nscript\n"


def test_without_deferbatch_slurms_batch_script_waits_for_its_own_node_alone() -> None:
    with flagged("Alloc", profile="slurm") as stage:
        gate = stage.gate("eager")
        stage.plan("eager", "Prolog", gate.line, node="cn02")
        stage.submit("eager", "echo started; crun -w cn02 echo there", "-N2", "-n2")
        gate.await_arrivals()
        assert stage.await_state("eager", "Running").state == "Running"
        eventually(lambda: stage.output("eager") == "started\n")
        # A step on the other node waits for that node's Prolog.
        eventually(lambda: "0" in {step.step_id for step in stage.job("eager").steps})
        assert {call.node for call in stage.calls("eager", "TaskProlog")} == {"cn01"}
        gate.open()
        assert stage.ended("eager").state == "Completed"
        assert stage.output("eager") == "started\nthere\n"
