from google.protobuf.json_format import ParseDict

from crane.hooks.v1 import hook_pb2
from cranecli.step.hooks import SiteHooks, run_document
from cranehooks.model.ids import Attempt, JobId, NodeName, StepId
from cranehooks.model.outcome import Outcome, OutcomeKind
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookKey, HookRun, Leftover, ScriptRun
from cranehooks.wire import hook_run_from_wire


def test_a_record_as_json_is_the_record() -> None:
    failed = Outcome(OutcomeKind.EXIT, 3, "no such device")
    script = ScriptRun("/hooks/a.sh", failed, 1000.25, 1.5, "ab" * 32, "out\n", 4, (Leftover(7, "sleep 9"),))
    key = HookKey(HookPoint.CRUN_EPILOG, JobId(1 << 40), Attempt(2), NodeName("cn01"), StepId("3"))
    run = HookRun(key, "me", 1000.0, 2.0, failed, (script,), 0.5, ("passed over in /hooks: README (name)",))
    assert hook_run_from_wire(ParseDict(run_document(run), hook_pb2.HookRun())) == run


def test_hooks_of_the_site_have_the_grace_that_the_daemon_says() -> None:
    answer = {"crun_prolog": {"patterns": ["/hooks/p"], "timeout_s": 1.5}, "grace_s": 0}
    site = SiteHooks.from_answer(answer, "crun_prolog")
    assert (site.patterns, site.timeout_s, site.grace_s) == (("/hooks/p",), 1.5, 0.0)
    assert SiteHooks.from_answer({}, "crun_prolog").grace_s == 5.0


def test_cells_that_the_site_sets_otherwise_travel_with_the_profile() -> None:
    answer = {"profile": "slurm", "overrides": {"EmptyPattern": "no-hook"}}
    assert SiteHooks.from_answer(answer, "crun_prolog").overrides == {"EmptyPattern": "no-hook"}
    assert SiteHooks.from_answer({"profile": "slurm"}, "crun_prolog").overrides == {}
