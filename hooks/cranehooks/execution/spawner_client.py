"""A daemon's side of its hook spawner: runs hooks there, bounded in number, and survives the spawner's death."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

from cranehooks.execution import spawner_messages as messages
from cranehooks.execution.engine import OnScriptStarted
from cranehooks.execution.framing import HEADER, frame, payload_bytes
from cranehooks.model.ids import RunId
from cranehooks.model.outcome import Outcome, OutcomeKind
from cranehooks.model.run import HookRun, RunSpec, ScriptRun, ScriptStarted

_MODULE = "cranehooks.execution.spawner"
_READY_WITHIN_S = 20.0
_RESTART_AFTER_S = (0.05, 0.2, 1.0, 5.0)
"""Waits before restarts, by the number of deaths in a row; a spawner that has taken a run starts the count anew."""


class SpawnerError(Exception):
    """The spawner does not start; its own message is on stderr."""


class QueueFullError(Exception):
    """As many runs wait as may wait; nothing was started, try again later."""


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
    ended: list[ScriptRun] = field(default_factory=list)

    @property
    def run_id(self) -> RunId:
        return self.spec.key.run_id

    def finish(self, record: HookRun) -> None:
        if not self.done.done():
            self.done.set_result(replace(record, queue_wait_s=self.queue_wait_s))

    def finish_unseen(self, kind: OutcomeKind, detail: str) -> None:
        """End the run without a report; the script that had begun is all that is known."""
        duration_s = time.monotonic() - self.asked_mono
        outcome = Outcome(kind, 0, detail)
        scripts = (
            () if self.began is None else (ScriptRun(self.began.path, outcome, self.asked_at, duration_s, self.began.sha256),)
        )
        uid = self.spec.credentials.uid if self.spec.credentials else os.geteuid()
        self.finish(HookRun(self.spec.key, self.spec.user or str(uid), self.asked_at, duration_s, outcome, scripts))


class SpawnerClient:
    """Use `async with SpawnerClient.started(...) as spawner`."""

    def __init__(self, command: list[str], *, max_concurrent: int, max_queued: int) -> None:
        self._command = command
        self._max_concurrent = max_concurrent
        self._max_queued = max_queued
        self._waiting: deque[_Run] = deque()
        self._running: dict[RunId, _Run] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._failed_starts = 0
        self.ready: messages.Ready | None = None
        """What the spawner said of itself; None while it is being restarted."""
        self.restarts = 0
        """How often it had to be restarted."""

    @classmethod
    @asynccontextmanager
    async def started(
        cls, *, containment: str = "auto", root_name: str = "default", max_concurrent: int = 64, max_queued: int = 4096
    ) -> AsyncIterator["SpawnerClient"]:
        """A running spawner. Leaving the context ends every run (TERM, grace, KILL) and the process, and waits for both.

        Cancelling that wait kills the spawner, and with it what it runs.

        Args:
            containment: `auto`, `cgroup2` or `none`.
            root_name: `<cluster>.<node>.<instance>`.
            max_concurrent: runs at a time; further ones wait in order of arrival.
            max_queued: as many may wait.

        Raises:
            SpawnerError: it does not start; the driver that is forced does not work, for example.
        """
        options = ["--containment", containment, "--root-name", root_name]
        # -P: the working directory of a daemon is no place to import from.
        client = cls([sys.executable, "-P", "-m", _MODULE, *options], max_concurrent=max_concurrent, max_queued=max_queued)
        reader = await client._launch()
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(client._serve(reader))
            try:
                yield client
            finally:
                serving.cancel()

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

    async def _serve(self, reader: asyncio.StreamReader) -> None:
        """Listen, and restart the spawner whenever it dies, until cancelled."""
        try:
            while True:
                await self._listen(reader)
                self._lose("the hook spawner died")
                await self._reap()
                reader = await self._relaunch()
        finally:
            await self._close()

    async def _relaunch(self) -> asyncio.StreamReader:
        while True:
            self.restarts += 1
            await asyncio.sleep(_RESTART_AFTER_S[min(self._failed_starts, len(_RESTART_AFTER_S) - 1)])
            self._failed_starts += 1
            with suppress(SpawnerError):
                return await self._launch()

    async def _launch(self) -> asyncio.StreamReader:
        """Start the process and wait until it takes runs."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                # A thread, because the call returns only after the exec; it uses vfork, so our size does not matter.
                self._process = await asyncio.to_thread(self._popen, theirs.fileno())
            reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException:
            ours.close()
            await self._close()
            raise
        try:
            async with asyncio.timeout(_READY_WITHIN_S):
                self.ready = await _receive_ready(reader)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError) as error:
            await self._close(now=True)
            raise SpawnerError("the hook spawner did not start; see its message on stderr") from error
        except BaseException:
            await self._close(now=True)
            raise
        self._dispatch()
        return reader

    def _popen(self, fd: int) -> subprocess.Popen[bytes]:
        command = [*self._command, "--fd", str(fd)]
        return subprocess.Popen(command, pass_fds=(fd,), stdin=subprocess.DEVNULL, start_new_session=True)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Take reports until the connection ends."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self._take(await _receive(reader))

    async def _close(self, *, now: bool = False) -> None:
        """Have the spawner end its runs and itself, and wait for it; report what is left as lost."""
        try:
            if self._writer is not None:
                self._writer.close()
            if now and self._process is not None:
                self._process.kill()
            await self._reap()
        finally:
            self._lose("the daemon ended")
            while self._waiting:
                self._waiting.popleft().finish_unseen(OutcomeKind.STOPPED, "the daemon ended before it was started")

    async def _reap(self) -> None:
        """Wait for the end of the process; cancelling kills it."""
        process, self._process = self._process, None
        if process is None:
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
            self._running[run.run_id] = run
            self._send(messages.StartRun(run.spec))

    def _take(self, message: messages.Message) -> None:
        match message:
            case messages.ScriptBegan(started):
                self._failed_starts = 0
                run = self._running[started.run_id]
                run.began = started
                if run.on_started is not None:
                    run.on_started(started)
            case messages.ScriptEnded(run_id, script):
                self._running[run_id].ended.append(script)
            case messages.RunFinished(record):
                run = self._running.pop(record.key.run_id)
                run.finish(replace(record, scripts=tuple(run.ended)))
                self._dispatch()
            case _:
                raise ValueError(f"unexpected message of the hook spawner: {type(message).__name__}")

    def _send(self, message: messages.Message) -> None:
        # Unflushed data is bounded by the runs under way; the spawner never stops reading.
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(frame(messages.encode(message)))

    def _lose(self, detail: str) -> None:
        """Nobody will see the end of what is under way."""
        self.ready = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        running, self._running = self._running, {}
        for run in running.values():
            run.finish_unseen(OutcomeKind.LOST, detail)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def _receive_ready(reader: asyncio.StreamReader) -> messages.Ready:
    message = await _receive(reader)
    if not isinstance(message, messages.Ready):
        raise SpawnerError(f"the hook spawner's first message is {type(message).__name__}, expected Ready")
    return message


async def _receive(reader: asyncio.StreamReader) -> messages.Message:
    length = payload_bytes(await reader.readexactly(HEADER.size))
    return messages.decode(await reader.readexactly(length))
