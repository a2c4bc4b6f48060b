"""A daemon's side of its hook spawner: runs hooks there, bounded in number, and survives the spawner's death."""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

from cranehooks.execution import spawner_messages as messages
from cranehooks.execution.containment.session import kill_sessions
from cranehooks.execution.engine import OnScriptStarted
from cranehooks.model.ids import RunId
from cranehooks.model.outcome import Outcome, OutcomeKind
from cranehooks.model.run import HookRun, RunSpec, ScriptRun, ScriptStarted
from cranekit import crash_points
from cranekit.backoff import Backoff
from cranekit.errors import CraneError, ErrorCode
from cranekit.frames import FrameBuffer, FrameError

_MODULE = "cranehooks.execution.spawner"
_READY_WITHIN_S = 20.0
_FIRST_RESTART_AFTER_S, _LAST_RESTART_AFTER_S = 0.05, 5.0
_READ_BYTES = 1 << 16


OnReady = Callable[[messages.Ready], None]


class SpawnerError(CraneError):
    """The spawner does not start; its own message is on stderr."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.UNAVAILABLE, message)


class QueueFullError(CraneError):
    """As many runs wait as may wait; nothing was started."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.RESOURCE_EXHAUSTED, message, retryable=True)


class _Connection:
    """Messages to and from one spawner process."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._frames = FrameBuffer()

    async def receive(self) -> list[messages.Message] | None:
        """What has come next, at least one; None at the end. Cancelling loses nothing."""
        received: list[messages.Message] = []
        while not received:
            try:
                data = await self._reader.read(_READ_BYTES)
            except ConnectionError:
                return None
            if not data:
                return None
            received = [messages.decode(payload) for _, payload in self._frames.feed(data)]
        return received

    def send(self, message: messages.Message) -> None:
        # Unflushed data is bounded by the runs under way; the spawner never stops reading.
        frame = messages.frame(message)
        if not self._writer.is_closing():
            self._writer.write(frame)

    def say_goodbye(self) -> None:
        """End what we send; what the spawner has to tell still arrives."""
        if self._writer.can_write_eof() and not self._writer.is_closing():
            self._writer.write_eof()

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


@dataclass(slots=True, eq=False)
class _Run:
    """A run that is waiting, or under way in the spawner."""

    spec: RunSpec
    on_started: OnScriptStarted | None
    done: asyncio.Future[HookRun]
    asked_at: float
    asked_mono: float
    queue_wait_s: float = 0.0
    began: ScriptStarted | None = None
    output: list[str] = field(default_factory=list)
    """Pieces of the script that is told of next."""
    ended: list[ScriptRun] = field(default_factory=list)

    @property
    def run_id(self) -> RunId:
        return self.spec.key.run_id

    def finish(self, record: HookRun) -> None:
        if not self.done.done():
            self.done.set_result(replace(record, queue_wait_s=self.queue_wait_s))

    def finish_unseen(self, kind: OutcomeKind, detail: str, code: int = 0) -> None:
        """End the run without a report; the script that had begun is all that is known."""
        duration_s = time.monotonic() - self.asked_mono
        outcome = Outcome(kind, code, detail)
        scripts = (
            () if self.began is None else (ScriptRun(self.began.path, outcome, self.asked_at, duration_s, self.began.sha256),)
        )
        uid = self.spec.credentials.uid if self.spec.credentials else os.geteuid()
        user = self.spec.user or str(uid)
        self.finish(HookRun(self.spec.key, user, self.asked_at, duration_s, outcome, scripts, notes=self.spec.notes))


class SpawnerClient:
    """Use `async with SpawnerClient.started(...) as spawner`."""

    def __init__(self, command: list[str], *, max_concurrent: int, max_queued: int, on_ready: OnReady | None = None) -> None:
        self._command = command
        self._on_ready = on_ready
        self._max_concurrent = max_concurrent
        self._max_queued = max_queued
        self._waiting: deque[_Run] = deque()
        self._running: dict[RunId, _Run] = {}
        self._connection: _Connection | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._backoff = Backoff(_FIRST_RESTART_AFTER_S, _LAST_RESTART_AFTER_S)
        self.ready: messages.Ready | None = None
        """What the spawner said of itself; None while it is being restarted."""
        self.restarts = 0
        """How often it had to be restarted."""

    @classmethod
    @asynccontextmanager
    async def started(
        cls,
        *,
        containment: str = "auto",
        root_name: str = "default",
        max_concurrent: int = 64,
        max_queued: int = 4096,
        on_ready: OnReady | None = None,
    ) -> AsyncIterator["SpawnerClient"]:
        """A running spawner. Leaving the context ends every run (TERM, grace, KILL) and the process, and waits for both.

        Cancelling that wait kills the spawner, and with it what it runs.

        Args:
            containment: `auto`, or the driver to force.
            root_name: `<cluster>.<node>.<instance>`.
            max_concurrent: runs at a time; further ones wait in order of arrival.
            max_queued: as many may wait.
            on_ready: told what each spawner says of itself, also of one that takes a dead one's place.

        Raises:
            SpawnerError: it does not start; the driver that is forced does not work, for example.
        """
        options = ["--containment", containment, "--root-name", root_name]
        # -P: the working directory of a daemon is no place to import from.
        client = cls(
            [sys.executable, "-P", "-m", _MODULE, *options],
            max_concurrent=max_concurrent,
            max_queued=max_queued,
            on_ready=on_ready,
        )
        failure: Exception | None = None
        try:
            await client._launch()
            async with asyncio.TaskGroup() as tasks:
                serving = tasks.create_task(client._serve())
                try:
                    yield client
                except Exception as error:  # noqa: BLE001 - raised again below, as itself and not within a group
                    failure = error
                finally:
                    serving.cancel()
        finally:
            await client._close()
        if failure is not None:
            raise failure

    @property
    def pid(self) -> int | None:
        """Of the spawner's process."""
        return None if self._process is None else self._process.pid

    @property
    def waiting(self) -> int:
        """Runs that wait for their turn."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Runs under way in the spawner."""
        return len(self._running)

    async def run(self, spec: RunSpec, on_started: OnScriptStarted | None = None) -> HookRun:
        """Run a hook to its end; it waits for its turn first, and `queue_wait_s` of the record says how long.

        Cancellation stops the run (TERM, grace, KILL) and waits until it has ended; a second one kills it now. When the
        spawner dies the run ends as `LOST`; it is never repeated.

        Args:
            spec: the run; its key must not be under way.
            on_started: called for each script as it begins, before anything else is heard of it.

        Raises:
            QueueFullError: too many wait.
            ValueError: a run of that key is under way.
        """
        run_id = spec.key.run_id
        if run_id in self._running or any(run.run_id == run_id for run in self._waiting):
            raise ValueError(f"hook run {run_id} is under way")
        if len(self._waiting) >= self._max_queued:
            raise QueueFullError(
                f"hook run {run_id} refused: {len(self._waiting)} runs wait, expected fewer than {self._max_queued}"
            )
        done: asyncio.Future[HookRun] = asyncio.get_running_loop().create_future()
        run = _Run(spec, on_started, done, time.time(), time.monotonic())
        self._waiting.append(run)
        self._dispatch()
        cancellations = 0
        while not done.done():
            try:
                await asyncio.shield(done)
            except asyncio.CancelledError:
                cancellations += 1
                self.stop(run_id, now=cancellations > 1)
        if cancellations:
            raise asyncio.CancelledError
        return done.result()

    def stop(self, run_id: RunId, *, now: bool = False) -> bool:
        """End a run, with its grace unless `now`; one that waits ends at once. Safe to repeat.

        Returns:
            Whether it waits or is under way.
        """
        if run_id in self._running:
            self._send(messages.StopRun(run_id, now))
            return True
        run = next((run for run in self._waiting if run.run_id == run_id), None)
        if run is None:
            return False
        self._waiting.remove(run)
        run.queue_wait_s = time.monotonic() - run.asked_mono
        run.finish_unseen(OutcomeKind.STOPPED, "stopped before it was started")
        return True

    # ---- the spawner's process

    async def _serve(self) -> None:
        """Listen, and restart the spawner whenever it dies, until cancelled."""
        while True:
            await self._listen()
            await self._lose("the hook spawner died")
            await self._reap()
            while self.ready is None:
                self.restarts += 1
                await asyncio.sleep(self._backoff.next_s())
                with suppress(SpawnerError):
                    await self._launch()

    async def _launch(self) -> None:
        """Start the process and wait until it takes runs; leaves nothing when it does not."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                await self._start_process(theirs.fileno())
            self._connection = _Connection(*await asyncio.open_unix_connection(sock=ours))
        except BaseException:
            ours.close()
            raise
        try:
            async with asyncio.timeout(_READY_WITHIN_S):
                first = await self._connection.receive()
        except TimeoutError:
            first = None
        match first:
            case [messages.Ready() as ready, *others]:
                self.ready = ready
                if self._on_ready is not None:
                    self._on_ready(ready)
                for message in others:
                    self._take(message)
                self._dispatch()
            case _:
                await self._lose("the hook spawner did not start")
                if self._process is not None:
                    self._process.kill()
                await self._reap()
                raise SpawnerError("the hook spawner did not start; its message is on stderr")

    async def _start_process(self, fd: int) -> None:
        """Start the process with that descriptor; cancelling waits until it has it, and so is known to us.

        Raises:
            SpawnerError: there is no process to be had.
        """
        # A thread, because the call returns only after the exec; it uses vfork, so our size does not matter.
        starting = asyncio.get_running_loop().run_in_executor(None, self._popen, fd)
        is_cancelled = False
        try:
            while not starting.done():
                try:
                    await asyncio.shield(starting)
                except asyncio.CancelledError:
                    is_cancelled = True
            self._process = starting.result()
        except OSError as error:
            raise SpawnerError(f"the hook spawner did not start: {error}") from error
        if is_cancelled:
            raise asyncio.CancelledError

    def _popen(self, fd: int) -> subprocess.Popen[bytes]:
        command = [*self._command, "--fd", str(fd)]
        return subprocess.Popen(command, pass_fds=(fd,), stdin=subprocess.DEVNULL, start_new_session=True)

    async def _listen(self) -> None:
        """Take reports until the connection ends."""
        while self._connection is not None:
            received = await self._connection.receive()
            if received is None:
                return
            for message in received:
                self._take(message)

    async def _close(self) -> None:
        """Have the spawner end its runs and itself, hear how they end, and wait for it; cancelling kills it."""
        self._give_up_waiting()
        try:
            if self._connection is not None:
                self._connection.say_goodbye()
                await self._listen()
        except asyncio.CancelledError:
            if self._process is not None:
                self._process.kill()
            raise
        finally:
            self._give_up_waiting()
            await self._lose("the daemon ended")
            await self._reap()

    def _give_up_waiting(self) -> None:
        while self._waiting:
            self._waiting.popleft().finish_unseen(OutcomeKind.STOPPED, "the daemon ended before it was started")

    async def _reap(self) -> None:
        """Wait for the end of the process; cancelling kills it."""
        process, self._process = self._process, None
        # Signalling it may have found it dead, and reaped it: its pid is nobody's then, or somebody else's.
        if process is None or process.poll() is not None:
            return
        loop = asyncio.get_running_loop()
        pidfd = os.pidfd_open(process.pid)
        exited: asyncio.Future[None] = loop.create_future()
        loop.add_reader(pidfd, _wake, exited)
        try:
            await exited
        except asyncio.CancelledError:
            process.send_signal(signal.SIGKILL)
            raise
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            process.wait()

    # ---- messages

    def _dispatch(self) -> None:
        """Hand over as many runs as fit."""
        while self.ready is not None and self._waiting and len(self._running) < self._max_concurrent:
            run = self._waiting.popleft()
            run.queue_wait_s = time.monotonic() - run.asked_mono
            try:
                self._send(messages.StartRun(run.spec))
            except FrameError as error:
                run.finish_unseen(OutcomeKind.SPAWN, str(error), errno.E2BIG)
                continue
            self._running[run.run_id] = run

    def _take(self, message: messages.Message) -> None:
        crash_points.reached(f"daemon hears from spawner: {type(message).__name__}")
        match message:
            case messages.Ready():
                # We were leaving before it was there: it gets nothing to do.
                pass
            case messages.Ending(run_ids):
                self.ready = None
                # Asked for too late, and not begun: the next spawner gets them, first of all.
                late = [run for run_id, run in self._running.items() if run_id not in run_ids]
                for run in reversed(late):
                    del self._running[run.run_id]
                    self._waiting.appendleft(run)
            case messages.ScriptBegan(started):
                self._backoff.reset()
                run = self._running[started.run_id]
                run.began = started
                if run.on_started is not None:
                    run.on_started(started)
            case messages.ScriptOutput(run_id, text):
                self._running[run_id].output.append(text)
            case messages.ScriptEnded(run_id, script):
                run = self._running[run_id]
                run.ended.append(replace(script, output="".join(run.output)))
                run.output.clear()
            case messages.RunFinished(record):
                run = self._running.pop(record.key.run_id)
                run.finish(replace(record, scripts=tuple(run.ended)))
                self._dispatch()
            case _:
                raise ValueError(f"unexpected message of the hook spawner: {type(message).__name__}")

    def _send(self, message: messages.Message) -> None:
        if self._connection is not None:
            crash_points.reached(f"daemon says to spawner: {type(message).__name__}")
            self._connection.send(message)

    async def _lose(self, detail: str) -> None:
        """The connection is over: nobody will see the end of what is under way."""
        self.ready = None
        connection, self._connection = self._connection, None
        running, self._running = self._running, {}
        # The kernel killed the scripts along with the spawner; what they had started is left to us, or to the next sweep.
        leaders = {run.began.pid: run.began.start_time for run in running.values() if run.began}
        try:
            if leaders:
                await asyncio.to_thread(kill_sessions, leaders)
        finally:
            for run in running.values():
                run.finish_unseen(OutcomeKind.LOST, detail)
        if connection is not None:
            await connection.close()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
