"""A running step as its user sees it: output comes out, input goes in, Ctrl-C asks and then ends it."""

from __future__ import annotations

import select
import signal
import time

from cranecli import exits
from cranecli.front.client import FrontError, FrontUnavailableError
from cranecli.front.job_watch import FINAL_STATES, ending_of, exit_code_of, job_of
from cranecli.step.link import STDERR, NodeEnded, Notice, Output, StepLink
from cranecli.step.output import LineAssembly
from cranecli.step.report import ToldCancellations, task_ranges, task_states, tasks_report
from cranecli.step.terminal import Sink, Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cranecli.front.client import Body
    from cranecli.front.conversation import Conversation
    from cranecli.front.job_watch import JobWatch

SECOND_INTERRUPT_S = 1.0
"""Within this time of the first, another Ctrl-C ends the step."""
SILENCE_S = 3.0
"""The controller says that the step is over, and its nodes have said nothing for so long: nothing more comes."""
REATTACH_FIRST_S = 0.25
REATTACH_LONGEST_S = 5.0
REATTACH_FOR_S = 120.0
"""A lost connection to the nodes is not tried again after this."""
_FORWARDED = frozenset({signal.SIGUSR1, signal.SIGUSR2})
_ENDED = "STEP_STATE_ENDED"


class StepSession:
    """Owns the streams of one step until every node has reported its end."""

    def __init__(self, talk: Conversation, watch: JobWatch, created: Body, *, is_labelled: bool, reads_stdin: bool) -> None:
        """`created` is the answer to CreateStep."""
        spec: Body = created["spec"]
        self._talk = talk
        self._watch = watch
        self._key: Body = {
            "job_id": str(created["job"]["job_id"]),
            "attempt": int(created["attempt"]),
            "step_id": str(spec["step_id"]),
        }
        self._nodes: dict[str, Body] = {str(node["node"]): node for node in created["nodes"]}
        self._placement = {
            str(part["node"]): [int(number) for number in part.get("task_ids") or ()] for part in spec.get("placement") or ()
        }
        self._cancellations = ToldCancellations(self._placement)
        ntasks = int(spec.get("ntasks") or 1)
        self._lines = [LineAssembly(ntasks, is_labelled=is_labelled) for _ in range(2)]
        self._sinks = [Sink(1), Sink(2)]
        self._source = Source(0, is_wanted=reads_stdin)
        self._is_eof_sent = False
        self._open_nodes = dict(self._nodes)
        self._tasks: dict[int, Body] = {}
        self._received: dict[int, int] = {}
        """Bytes of output that each task's node need not send again."""
        self._link: StepLink | None = None
        self._reattach_at: float | None = None
        self._reattach_pause_s = REATTACH_FIRST_S
        self._lost_at: float | None = None
        self._last_heard = time.monotonic()
        self._interrupted_at: float | None = None
        self._cancelled_by = 0
        self._ended_by_others: set[int] = set()
        """Tasks of parts that did not end by themselves."""
        self._over: str | None = None
        """Why nothing more is to be expected, once the controller has said so."""
        self._floor = 0
        """The exit code is at least this, whatever the tasks say."""
        self.cancel_reason = ""
        """Why the user ended the step before its time; empty: it ended by itself."""

    @property
    def name(self) -> str:
        return f"{self._key['job_id']}.{self._key['step_id']}"

    def attach(self) -> None:
        """Joins this program with the nodes of the step.

        Raises:
            FrontUnavailableError: there is no connection to the local daemon.
        """
        key = self._key
        nodes = [
            {**node, "output_received": received} if (received := self._received_from(name)) else node
            for name, node in self._open_nodes.items()
        ]
        self._link = StepLink(int(key["job_id"]), key["attempt"], key["step_id"], nodes)

    def _received_from(self, node: str) -> int:
        return sum(self._received.get(task_id, 0) for task_id in self._placement.get(node, ()))

    def run(self) -> int:
        """Until the step is over.

        Returns:
            The exit code: the highest of the tasks', or what a signal asks for.
        """
        try:
            while not self._is_finished():
                self._wait()
                self._notice_signals()
                self._notice_job()
                self._reattach()
            for lines, sink in zip(self._lines, self._sinks, strict=True):
                sink.write(lines.end_all())
                self._write(sink, is_last=True)
        finally:
            self.close()
        return self._exit_code()

    def close(self) -> None:
        """Leaves the nodes. Safe to repeat."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _is_finished(self) -> bool:
        if not self._open_nodes:
            return self._link is None or self._link.is_complete
        return self._over is not None and time.monotonic() - self._last_heard > SILENCE_S

    # ---- waiting

    def _wait(self) -> None:
        link, source = self._link, self._source
        wanted: dict[int, int] = {}
        stdout_fd, stderr_fd = (sink.fileno() for sink in self._sinks)
        for sink in self._sinks:
            if sink.has_waiting:
                wanted[sink.fileno()] = select.POLLOUT
        is_congested = any(sink.is_congested for sink in self._sinks)
        takes_input = False
        if link is not None:
            mask = (0 if is_congested else select.POLLIN) | (select.POLLOUT if link.wants_to_send else 0)
            if mask:
                wanted[link.fileno()] = mask
            takes_input = not self._is_eof_sent and link.stdin_room_bytes > 0
            if takes_input and source.is_ended:
                self._give_input(link, b"")
            elif takes_input and source.is_readable_now and source.fileno() not in wanted:
                wanted[source.fileno()] = select.POLLIN
        ready = self._talk.turn(self._due_s(), wanted)
        for fd, sink in ((stdout_fd, self._sinks[0]), (stderr_fd, self._sinks[1])):
            if fd in ready and sink.has_waiting:
                self._write(sink)
        if link is not None and link.fileno() in ready:
            self._serve(link, can_receive=not is_congested)
        if takes_input and self._link is link and link is not None and source.fileno() in ready:
            data = source.read(link.stdin_room_bytes)
            if data is not None:
                self._give_input(link, data)

    def _due_s(self) -> float | None:
        now = time.monotonic()
        due_s = [self._watch.due_s()]
        if self._reattach_at is not None:
            due_s.append(max(0.0, self._reattach_at - now))
        if self._over is not None:
            due_s.append(max(0.0, self._last_heard + SILENCE_S - now))
        return min((seconds for seconds in due_s if seconds is not None), default=None)

    # ---- streams

    def _serve(self, link: StepLink, *, can_receive: bool) -> None:
        try:
            link.send()
            if can_receive:
                for event in link.receive():
                    self._take(event)
        except FrontError as error:
            self._lose(error)
            return
        for sink in self._sinks:
            self._write(sink)

    def _take(self, event: Output | Notice | NodeEnded) -> None:
        self._last_heard = time.monotonic()
        self._lost_at = None
        self._reattach_pause_s = REATTACH_FIRST_S
        match event:
            case Output(channel=channel, task_id=task_id, data=data):
                self._received[task_id] = self._received.get(task_id, 0) + len(data)
                which = 1 if channel == STDERR else 0
                self._sinks[which].write(self._lines[which].feed(task_id, data))
            case Notice(text=text):
                line = self._cancellations.line_of(text)
                if line:
                    self._say(line)
            case NodeEnded():
                self._node_ended(event)

    def _node_ended(self, event: NodeEnded) -> None:
        self._open_nodes.pop(event.node, None)
        for task in event.tasks:
            task_id = int(task.get("task_id", 0))
            self._tasks[task_id] = task
            if event.reason:
                self._ended_by_others.add(task_id)
            if task_id == 0:
                # Nobody is left to read the input.
                self._is_eof_sent = True
            for lines, sink in zip(self._lines, self._sinks, strict=True):
                sink.write(lines.end(task_id))
        if self._cancelled_by != signal.SIGPIPE:
            # A program whose output nobody wants ends in silence.
            for line in tasks_report(event.node, self._cancellations.without_named(event.tasks)):
                self._say(f"error: {line}")
        is_told = any(str(task.get("reason", "")).startswith(event.reason) for task in event.tasks)
        if event.reason and not self._cancelled_by and not is_told:
            self._say(f"error: {event.node}: {event.reason}")
        if event.reason or not event.tasks:
            # What was ended before its time has not gone well, whatever its tasks make of it.
            self._floor = max(self._floor, exits.FAILED)

    def _write(self, sink: Sink, *, is_last: bool = False) -> None:
        was_gone = sink.is_gone
        try:
            if is_last:
                sink.flush_all()
            else:
                sink.flush()
        except OSError as error:
            self._say(f"error: cannot write the step's output: {error.strerror}")
            self._floor = max(self._floor, exits.FAILED)
            self._cancel("its output cannot be written", 0)
            return
        if sink.is_gone and not was_gone and sink.fileno() == 1 and not is_last:
            # As in a pipeline of local programs: who writes for nobody ends.
            self._cancel("nobody reads its output", signal.SIGPIPE)

    def _give_input(self, link: StepLink, data: bytes) -> None:
        try:
            link.write_stdin(data)
        except FrontUnavailableError as error:
            self._lose(error)
            return
        self._is_eof_sent = not data

    def _lose(self, error: FrontError) -> None:
        """The connection to the nodes broke: attach again, unless that was refused."""
        link, self._link = self._link, None
        unconfirmed = link.unconfirmed_bytes if link is not None else 0
        if link is not None:
            link.close()
        if not self._open_nodes:
            return
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
            self._say(f"warning: step {self.name}: {error.message}; attaching again")
            if unconfirmed and not self._source.is_ended:
                self._say(f"warning: step {self.name}: {unconfirmed} bytes of its input may be lost")
        if error.code not in {"UNAVAILABLE", "INTERNAL", "UNKNOWN"} or now - self._lost_at > REATTACH_FOR_S:
            self._say(f"error: step {self.name}: {error.message}")
            self._cancel(f"no output: {error.message}", 0)
            self._floor = max(self._floor, error.exit_code)
            self._over = error.message
            self._last_heard = now
            return
        self._reattach_at = now + self._reattach_pause_s
        self._reattach_pause_s = min(REATTACH_LONGEST_S, self._reattach_pause_s * 2)

    def _reattach(self) -> None:
        if self._reattach_at is None or time.monotonic() < self._reattach_at:
            return
        self._reattach_at = None
        try:
            self.attach()
        except FrontError as error:
            self._lose(error)

    # ---- the job

    def _notice_job(self) -> None:
        while (update := self._watch.take()) is not None:
            job = job_of(update)
            step = next((step for step in job.get("steps") or () if step.get("step_id") == self._key["step_id"]), None)
            is_job_over = self._watch.is_final or job.get("state") in FINAL_STATES
            if self._over is None and (is_job_over or (step is not None and step.get("state") == _ENDED)):
                self._over = ending_of(job) if is_job_over else str((step or {}).get("reason", ""))
                self._last_heard = time.monotonic()
                if step is not None:
                    self._floor = max(self._floor, exit_code_of(step.get("exit")))
            if is_job_over and job.get("state") != "JOB_STATE_COMPLETED" and self._open_nodes:
                self._say(f"error: job {self._key['job_id']} {ending_of(job)}")
                self._floor = max(self._floor, exits.FAILED)

    # ---- signals

    def _notice_signals(self) -> None:
        for number in self._talk.attention.take():
            match number:
                case signal.SIGCONT:
                    self._source.resume()
                case signal.SIGINT:
                    self._interrupt()
                case _ if number in _FORWARDED:
                    self._talk.tell("SignalStep", {**self._key, "signal": number})
                case _:
                    self._cancel(f"crun got {signal.Signals(number).name}", number)

    def _interrupt(self) -> None:
        now = time.monotonic()
        if self._cancelled_by:
            # It has been asked to end, and its user waits no longer: the nodes end it by themselves.
            self._say(f"step {self.name}: leaving it to its end")
            self._open_nodes.clear()
            if self._link is not None:
                self._link.is_complete = True
            return
        if self._interrupted_at is not None and now - self._interrupted_at <= SECOND_INTERRUPT_S:
            self._say(f"ending step {self.name}")
            self._cancel("interrupted by its user", signal.SIGINT)
            return
        self._interrupted_at = now
        self._say("interrupt (one more within 1 s ends the step)")
        for line in task_states(self._placement, self._open_nodes, self._tasks):
            self._say(f"step {self.name}: {line}")

    def _cancel(self, reason: str, number: int) -> None:
        if number and not self._cancelled_by:
            self._cancelled_by = number
            self.cancel_reason = "" if number == signal.SIGPIPE else reason
        self._talk.tell("CancelStep", {**self._key, "reason": reason})

    # ---- the end

    def _exit_code(self) -> int:
        if self._cancelled_by:
            return exits.SIGNALLED + self._cancelled_by
        codes = [self._code_of(task_id, task) for task_id, task in self._tasks.items()]
        if self._open_nodes:
            missing = [number for node in self._open_nodes for number in self._placement.get(node, [])]
            why = f": {self._over}" if self._over else ""
            self._say(f"error: no end of {task_ranges(missing)} on {', '.join(self._open_nodes)} was reported{why}")
            codes.append(exits.FAILED)
        return max([self._floor, *codes])

    def _code_of(self, task_id: int, task: Body) -> int:
        """A failed hook counts as FAILED, also for the tasks that were ended because of it; a task's own end counts as it is."""
        code = exit_code_of(task.get("exit"))
        if task.get("cancelled"):
            return exits.FAILED if code > exits.SIGNALLED else code or exits.FAILED
        is_hook_failure = any(other.get("cancelled") for other in self._tasks.values())
        return exits.FAILED if is_hook_failure and task_id in self._ended_by_others else code

    def _say(self, text: str) -> None:
        # After what the tasks wrote before.
        for sink in self._sinks:
            if sink.has_waiting:
                self._write(sink)
        self._talk.status.say(text)
