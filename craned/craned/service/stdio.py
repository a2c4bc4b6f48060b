"""StepStdioService: joins launchers with the steps of this node."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

import grpc
import structlog

from crane.hooks.v1 import craned_service_pb2 as pb
from crane.hooks.v1 import craned_service_pb2_grpc as pb_grpc
from craned.attempts.attempt import AttemptState
from craned.attempts.driver import Attempts
from craned.service.messages import output_to_wire
from craned.steps.driver import ActiveStep, Steps
from craned.steps.stdio import StdinOverrunError
from cranehooks.model.ids import Attempt, AttemptKey, JobId, NodeName, StepId, StepKey
from cranehooks.model.job import TaskEnd
from cranehooks.wire import task_end_to_wire
from cranekit.errors import CraneError, ErrorCode
from cranekit.rpc.credentials import Identity, Role
from cranekit.rpc.interceptors import current_identity

STEP_COMES_WITHIN_S: Final = 120.0
"""How long a launcher may be here before its step."""

NOTICE_AFTER_S: Final = 0.5
"""A launcher is told of a Prolog that takes longer than this."""

HELLO_WITHIN_S: Final = 10.0

MAX_WAITING: Final = 1000
"""Launchers that wait for their step; further ones are refused."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("craned.steps.stdio")


class _Stream:
    """One launcher's stream: woken when there may be something to send."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self._failure: CraneError | None = None

    @property
    def failure(self) -> CraneError | None:
        """Why it ends before its step does."""
        return self._failure

    def wake(self) -> None:
        self.woken.set()

    def fail(self, error: CraneError) -> None:
        self._failure = error
        self.woken.set()

    def replaced(self) -> None:
        self.fail(CraneError(ErrorCode.ABORTED, "another launcher has taken over the step"))


class StepStdioService(pb_grpc.StepStdioServiceServicer):
    """For users: each joins own steps only."""

    def __init__(self, node: NodeName, attempts: Attempts, steps: Steps) -> None:
        self._node = node
        self._attempts = attempts
        self._steps = steps
        self._waiting = 0

    def join(self, server: grpc.aio.Server) -> None:
        """Has the server serve it."""
        pb_grpc.add_StepStdioServiceServicer_to_server(self, server)

    async def AttachStep(
        self,
        request_iterator: AsyncIterator[pb.AttachStepRequest],
        context: grpc.aio.ServicerContext[pb.AttachStepRequest, pb.AttachStepResponse],
    ) -> AsyncIterator[pb.AttachStepResponse]:
        del context
        identity = current_identity()
        if identity.role is not Role.USER:
            raise CraneError(ErrorCode.PERMISSION_DENIED, "steps are joined by users")
        hello = await _hello(request_iterator)
        key = StepKey(JobId(hello.job_id), Attempt(hello.attempt), StepId(hello.step_id))
        if self._waiting >= MAX_WAITING:
            raise CraneError(ErrorCode.RESOURCE_EXHAUSTED, f"{self._waiting} launchers wait here already", retryable=True)
        self._waiting += 1
        try:
            async for notice in self._until_known(key, identity):
                yield pb.AttachStepResponse(notice=pb.StepNotice(text=notice))
        finally:
            self._waiting -= 1
        active = self._steps.find(key)
        if active is None:
            yield _ended((), "the step ended before its launcher came; its result is with the controller")
            return
        async for response in self._serve(active, request_iterator, hello.output_received):
            yield response

    async def _until_known(self, key: StepKey, identity: Identity) -> AsyncIterator[str]:
        """Waits until the step has a supervisor or has ended; yields what the user should know meanwhile.

        Raises:
            CraneError: PERMISSION_DENIED, another's step; NOT_FOUND, it does not come.
        """
        has_told = False
        clock = asyncio.get_running_loop().time
        arrived = clock()
        while True:
            news = self._steps.news
            owner, is_waiting, is_over = self._look(key)
            if owner is not None and owner != identity.uid:
                raise CraneError(ErrorCode.PERMISSION_DENIED, f"step {key} is another user's")
            if is_over or self._steps.find(key) is not None:
                return
            is_slow = clock() >= arrived + NOTICE_AFTER_S
            if is_waiting and is_slow and not has_told:
                has_told = True
                yield f"waiting for Prolog on {self._node}"
            deadline = None if is_waiting and has_told else arrived + (NOTICE_AFTER_S if is_waiting else STEP_COMES_WITHIN_S)
            try:
                async with asyncio.timeout_at(deadline):
                    await news.wait()
            except TimeoutError:
                if not is_waiting:
                    message = f"step {key} did not come to {self._node} within {STEP_COMES_WITHIN_S:g} s"
                    raise CraneError(ErrorCode.NOT_FOUND, message) from None

    def _look(self, key: StepKey) -> tuple[int | None, bool, bool]:
        """Whose step it is (None: not known here), whether it waits for the Prolog, whether it has ended."""
        active = self._steps.find(key)
        held = self._attempts.find(AttemptKey(key.job_id, key.attempt))
        if held is None:
            return (None if active is None else active.uid), False, False
        state: AttemptState = held.state
        return held.job.spec.uid, state.step(key.step_id) is not None, key.step_id in state.ended_steps

    async def _serve(
        self, active: ActiveStep, requests: AsyncIterator[pb.AttachStepRequest], received_bytes: int
    ) -> AsyncIterator[pb.AttachStepResponse]:
        stream = _Stream()
        self._steps.attach(active, stream, received_bytes)
        try:
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(self._read(active, stream, requests))
                try:
                    async for response in _responses(active, stream):
                        yield response
                finally:
                    reading.cancel()
        finally:
            self._steps.detach(active, stream)
        if stream.failure is not None:
            raise stream.failure

    async def _read(self, active: ActiveStep, stream: _Stream, requests: AsyncIterator[pb.AttachStepRequest]) -> None:
        try:
            async for request in requests:
                self._take(active, request)
            # Half closed: there is no more stdin and no more credit than was given.
        except CraneError as error:
            stream.fail(error)

    def _take(self, active: ActiveStep, request: pb.AttachStepRequest) -> None:
        match request.WhichOneof("message"):
            case "stdin":
                try:
                    self._steps.send_stdin(active, request.stdin.data, is_eof=request.stdin.eof)
                except StdinOverrunError as error:
                    raise CraneError(ErrorCode.RESOURCE_EXHAUSTED, str(error)) from error
            case "output_credit":
                self._steps.consumed(active, request.output_credit)
            case kind:
                raise CraneError(ErrorCode.INVALID_ARGUMENT, f"AttachStep: {kind or 'an empty message'} after the hello")


async def _responses(active: ActiveStep, stream: _Stream) -> AsyncIterator[pb.AttachStepResponse]:
    """All there is to send, as it comes, up to the step's end; nothing more once the stream has failed."""
    while True:
        stream.woken.clear()
        while stream.failure is None and (response := _next_response(active)) is not None:
            yield response
        if stream.failure is not None:
            return
        if active.end is not None:
            yield _ended(*active.end)
            return
        await stream.woken.wait()


def _next_response(active: ActiveStep) -> pb.AttachStepResponse | None:
    if active.notices:
        return pb.AttachStepResponse(notice=pb.StepNotice(text=active.notices.pop(0)))
    if (output := active.output.take()) is not None:
        return pb.AttachStepResponse(output=output_to_wire(output))
    if active.stdin_credit:
        credit, active.stdin_credit = active.stdin_credit, 0
        return pb.AttachStepResponse(stdin_credit=credit)
    return None


def _ended(tasks: tuple[TaskEnd, ...], reason: str) -> pb.AttachStepResponse:
    return pb.AttachStepResponse(ended=pb.StepPartEnded(tasks=[task_end_to_wire(task) for task in tasks], reason=reason))


async def _hello(requests: AsyncIterator[pb.AttachStepRequest]) -> pb.AttachHello:
    with suppress(StopAsyncIteration, TimeoutError):
        async with asyncio.timeout(HELLO_WITHIN_S):
            first = await anext(requests)
        if first.WhichOneof("message") == "hello":
            return first.hello
    raise CraneError(ErrorCode.INVALID_ARGUMENT, "AttachStep begins with a hello")
