"""The life of one crun: an allocation, unless it is in one, then a step with its hooks, then the end of both."""

from __future__ import annotations

import os
import select
import signal
import sys

from cranecli import exits
from cranecli.front.attention import ENDING
from cranecli.front.client import FrontError
from cranecli.front.conversation import SUBMIT_PATIENCE_S, InterruptedFrontError, NotStartedError
from cranecli.front.job_watch import RUNNING, JobWatch, job_of
from cranecli.submission.option_values import positive_number
from cranecli.submission.options import given_resources
from cranecli.submission.requests import environment_for, job_request, step_request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cranecli.front.client import Body
    from cranecli.front.conversation import Conversation
    from cranecli.step.hooks import LaunchHook
    from cranecli.submission.options import JobOptions

JOB_VARIABLES = ("CRANE_JOB_ID", "SLURM_JOB_ID")
NUM_NODES_VARIABLES = ("CRANE_JOB_NUM_NODES", "SLURM_JOB_NUM_NODES")


class HookFailedError(Exception):
    """CrunProlog failed: nothing was sent to a node. The text says which script, and how."""

    def __init__(self, failure: str, step_name: str, *, fails_step: bool) -> None:
        super().__init__(failure)
        self.step_name = step_name
        self.fails_step = fails_step
        """Whether the step counts as failed, and not as cancelled."""

    @property
    def told(self) -> str:
        """For the user: `step 42.0 cancelled, nothing was sent: CrunProlog setup.sh exit 1`."""
        return f"step {self.step_name} {'failed' if self.fails_step else 'cancelled'}, nothing was sent: {self}"


class Launch:
    """One command of the user's, from its submission to its exit code."""

    def __init__(self, talk: Conversation, options: JobOptions, argv: Sequence[str]) -> None:
        self._talk = talk
        self._options = options
        self._argv = argv
        self._environment = environment_for("crun", options)
        self._site: Body = {}

    def run(self) -> int:
        """Raises NotStartedError, FrontError and InterruptedFrontError where there is no step to give an exit code."""
        talk = self._talk
        job_id = surrounding_job()
        if job_id is not None:
            if given := given_resources(self._options):
                talk.status.say(f"warning: {', '.join(given)}: for jobs only, a step has what its job has")
            site = talk.client.stream("LaunchHooks")
            watch = JobWatch(talk.client, job_id, is_bound=False)
            self._site = talk.answer("LaunchHooks", site)
            try:
                return self._run_step(job_id, watch)
            except HookFailedError as error:
                return self._fail(error.told)
            finally:
                watch.close()
        name = os.path.basename(self._argv[0])  # noqa: PTH119 - pathlib costs too much at start
        # The step brings the environment.
        request = job_request("JOB_KIND_RUN", self._options, {}, name)
        submitted = talk.client.stream("SubmitJob", request)
        site = talk.client.stream("LaunchHooks")
        # While the controller works, so does this.
        import cranecli.step.session  # noqa: F401 - needed when the job runs

        job_ids = talk.ask_for_room("SubmitJob", request, submitted, patience_s=SUBMIT_PATIENCE_S)["job_ids"]
        self._site = talk.answer("LaunchHooks", site)
        return self._run_job(int(job_ids[0]))

    def _run_job(self, job_id: int) -> int:
        talk = self._talk
        watch = JobWatch(talk.client, job_id, is_bound=True)
        try:
            talk.await_running(watch, job_id)
            # Its options chose the allocation; the step takes all of it.
            return self._run_step(job_id, watch, is_whole_job=True)
        except HookFailedError as error:
            self._give_up(job_id, str(error), has_failed=error.fails_step)
            return self._fail(error.told)
        except InterruptedFrontError as error:
            talk.status.say(f"interrupted: job {job_id} is cancelled")
            self._give_up(job_id, str(error))
            raise
        except FrontError as error:
            self._give_up(job_id, error.message)
            raise
        finally:
            watch.close()

    def _give_up(self, job_id: int, reason: str, *, has_failed: bool = False) -> None:
        key = "fail_reason" if has_failed else "cancel_reason"
        self._talk.tell("CompleteAllocation", {"job_id": str(job_id), "exit": {"code": exits.FAILED}, key: reason})

    def _run_step(self, job_id: int, watch: JobWatch, *, is_whole_job: bool = False) -> int:
        from cranecli.step.session import StepSession

        talk, options = self._talk, self._options
        request = step_request(job_id, options, self._environment, self._argv)
        spec = request["spec"]
        if is_whole_job:
            # An overcommitted job was asked for with fewer tasks than its step has.
            for name in ("num_nodes", "nodelist", *(() if options.overcommit else ("ntasks",))):
                spec.pop(name, None)
        elif options.ntasks_per_node and not options.ntasks and not options.nodes:
            spec["ntasks"] = options.ntasks_per_node * _surrounding_nodes()
        created = talk.ask("CreateStep", request)
        key = {"job_id": str(job_id), "attempt": int(created["attempt"]), "step_id": str(created["spec"]["step_id"])}
        step_name = f"{job_id}.{key['step_id']}"
        session = StepSession(talk, watch, created, is_labelled=options.label, reads_stdin=options.input != "none")
        try:
            self._run_prolog(created, watch, step_name)
            session.attach()
            talk.ask("StartStep", key)
        except (HookFailedError, FrontError, InterruptedFrontError, NotStartedError) as error:
            session.close()
            request = {**key, "reason": str(error)}
            if isinstance(error, HookFailedError):
                request["failed"] = error.fails_step
            talk.tell("CancelStep", request)
            raise
        code = session.run()
        if is_whole_job:
            ending: Body = {"job_id": str(job_id), "exit": exit_status_of(code)}
            if session.cancel_reason:
                ending["cancel_reason"] = session.cancel_reason
            talk.tell("CompleteAllocation", ending)
        return self._run_epilog(created, code, step_name)

    # ---- hooks

    def _run_prolog(self, created: Body, watch: JobWatch, step_name: str) -> None:
        """Raises HookFailedError; InterruptedFrontError when a signal stopped the hook, NotStartedError when its job's end did."""
        hook = self._start_hook(created, self._options.prolog, None)
        if hook is None:
            return
        stopped_by, job_end = self._await_hook(hook, watch)
        self._record(hook)
        if stopped_by:
            raise InterruptedFrontError(stopped_by)
        if job_end:
            raise NotStartedError(f"job {created['job']['job_id']} {job_end}")
        if hook.failure:
            raise HookFailedError(hook.failure, step_name, fails_step=hook.fails_step)

    def _run_epilog(self, created: Body, code: int, step_name: str) -> int:
        """Returns crun's exit code: the step's, unless that is a success and the cluster's rules have the hook's failure count."""
        hook = self._start_hook(created, self._options.epilog, exit_status_of(code))
        if hook is None:
            return code
        self._await_hook(hook)
        self._record(hook)
        if hook.failure:
            counts = hook.fails_step
            self._talk.status.say(f"{'error' if counts else 'warning'}: step {step_name}: {hook.failure}")
            return code or (exits.FAILED if counts else 0)
        return code

    def _start_hook(self, created: Body, own_script: str | None, epilog_exit: Body | None) -> LaunchHook | None:
        """The hook, started; None when there is none. `epilog_exit`: how the step ended, for the epilog."""
        configured = self._site.get("crun_prolog" if epilog_exit is None else "crun_epilog") or {}
        if own_script == "" or (own_script is None and not configured.get("patterns")):
            return None
        from cranecli.step.hooks import HookedStep, start_epilog, start_prolog

        step = HookedStep.from_answer(created, self._site, self._argv)
        if epilog_exit is None:
            hook = start_prolog(step, self._site, own_script)
        else:
            hook = start_epilog(step, self._site, own_script, epilog_exit)
        return None if hook.is_empty else hook

    def _await_hook(self, hook: LaunchHook, watch: JobWatch | None = None) -> tuple[int, str]:
        """Until the hook has ended. The end of the job that is watched stops it.

        Returns:
            The signal that stopped it, or 0, and how the job that it was for has ended, or nothing.
        """
        stopped_by, job_end = 0, ""
        self._talk.status.clear()
        try:
            while not hook.is_over:
                due_s = [seconds for seconds in (hook.due_s(), watch.due_s() if watch else None) if seconds is not None]
                self._talk.turn(min(due_s, default=None), {hook.fileno(): select.POLLIN})
                hook.poll()
                for number in self._talk.attention.take():
                    if number not in ENDING:
                        continue
                    if stopped_by:
                        hook.kill()
                    else:
                        stopped_by = number
                        hook.stop()
                if watch is not None and not job_end and (job_end := _end_of_job(watch)) and not stopped_by:
                    hook.stop()
        finally:
            hook.close()
        return stopped_by, job_end

    def _record(self, hook: LaunchHook) -> None:
        from cranecli.step.hooks import run_document

        if hook.record is not None:
            self._talk.tell("RecordLaunchHook", {"run": run_document(hook.record)})

    def _fail(self, message: str) -> int:
        self._talk.status.say(f"error: {message}")
        return exits.FAILED


def _end_of_job(watch: JobWatch) -> str:
    """Why the job runs no longer, as far as its updates tell."""
    while (update := watch.take()) is not None:
        job = job_of(update)
        if job.get("state") != RUNNING:
            return f"is over: {job.get('reason') or 'it has ended'}"
    return ""


def exit_status_of(code: int) -> Body:
    """A shell's exit code as an ExitStatus."""
    if exits.SIGNALLED < code < exits.SIGNALLED + signal.NSIG:
        return {"code": 0, "signal": code - exits.SIGNALLED}
    return {"code": code, "signal": 0}


def surrounding_job() -> int | None:
    """The job whose allocation this program runs in, if it runs in one."""
    for name in JOB_VARIABLES:
        text = os.environ.get(name, "")
        if text:
            if text.isascii() and text.isdigit():
                return int(text)
            sys.stderr.write(f"crun: warning: {name}={text!r} is no job, so this is taken to be outside of an allocation\n")
    return None


def _surrounding_nodes() -> int:
    for name in NUM_NODES_VARIABLES:
        text = os.environ.get(name, "")
        if text.isascii() and text.isdigit() and int(text) > 0:
            return positive_number(text)
    return 1
