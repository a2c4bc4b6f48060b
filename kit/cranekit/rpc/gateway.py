"""Front ends that import no gRPC: JSON over a local Unix socket, relayed to a gRPC service by its descriptor.

The client sends `{"id": n, "method": M, "body": {…}}` and gets `{"id": n, "ok": {…}}` or `{"id": n, "error": {"code", "message"}}`; from a streaming method
`{"id": n, "item": {…}}` any number of times, then `{"id": n, "end": true}` or an error. `{"id": n, "cancel": true}` ends a call. Calls run side by side; when
the connection closes, all of them are cancelled. Identity is the peer's, by SO_PEERCRED.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import structlog
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message_factory import GetMessageClass
from prometheus_client import CollectorRegistry, Counter, Histogram

from cranekit import frames
from cranekit.aio_frames import FrameStream
from cranekit.errors import CraneError, ErrorCode
from cranekit.inquiries import Inquiries
from cranekit.local_socket import Peer
from cranekit.rpc.credentials import Identity, TokenMinter, identity_of_peer, user_metadata
from cranekit.rpc.interceptors import LATENCY_BUCKETS_S
from cranekit.rpc.status import error_from_rpc

_log = structlog.get_logger()

Json = dict[str, Any]  # as JSON has it

IDENTIFIED_WITHIN_S = 20.0
"""A name service that does not say by then who a front end's user is has the front end turned away."""

Identities = Inquiries[tuple[int, int], Identity]
"""Who local users are, by uid and gid."""

MAX_CALLS = 64
"""Calls under way on one connection; more are refused."""

MAX_WAITING_DATA = 64
"""Data frames that wait for their handler before the connection is no longer read."""


class Gateway:
    """Calls one gRPC service with JSON, by its descriptor."""

    def __init__(self, channel: grpc.aio.Channel, service: ServiceDescriptor, server: str = "the server") -> None:
        """`server`: how messages to people call who is at the other end of the channel."""
        self._channel = channel
        self._service = service
        self._server = server

    def knows(self, method: str) -> bool:
        return method in self._service.methods_by_name

    def streams(self, method: str) -> bool:
        """Whether the method answers with a stream."""
        return bool(self._service.methods_by_name[method].server_streaming)

    async def call(self, method: str, body: Json, token: str) -> Json:
        """One answer.

        Raises:
            CraneError: what the service answered, or INVALID_ARGUMENT for a body that is not the method's.
        """
        descriptor, request = self._request(method, body)
        stub = self._channel.unary_unary(
            self._path(descriptor),
            request_serializer=type(request).SerializeToString,
            response_deserializer=GetMessageClass(descriptor.output_type).FromString,
        )
        try:
            return _to_json(await stub(request, metadata=grpc.aio.Metadata(*user_metadata(token))))
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from error

    async def stream(self, method: str, body: Json, token: str) -> AsyncIterator[Json]:
        """Answers as they come; closing the iterator cancels the call. Raises as `call`."""
        descriptor, request = self._request(method, body)
        stub = self._channel.unary_stream(
            self._path(descriptor),
            request_serializer=type(request).SerializeToString,
            response_deserializer=GetMessageClass(descriptor.output_type).FromString,
        )
        call = stub(request, metadata=grpc.aio.Metadata(*user_metadata(token)))
        try:
            async for answer in call:
                yield _to_json(answer)
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from error
        finally:
            call.cancel()

    def _failure(self, error: grpc.aio.AioRpcError) -> CraneError:
        failure = error_from_rpc(error)
        if failure.code is not ErrorCode.UNAVAILABLE or failure.retry_after_s is not None:
            return failure  # its own words: it is there
        return CraneError(failure.code, f"{self._server} does not answer: {failure.message}", retryable=True)

    def _path(self, descriptor: MethodDescriptor) -> str:
        return f"/{self._service.full_name}/{descriptor.name}"

    def _request(self, method: str, body: Json) -> tuple[MethodDescriptor, Any]:  # the method's own message type
        descriptor = self._service.methods_by_name[method]
        request = GetMessageClass(descriptor.input_type)()
        try:
            ParseDict(body, request)
        except (ParseError, ValueError, TypeError, AttributeError) as error:
            raise CraneError(ErrorCode.INVALID_ARGUMENT, f"{method}: {error}") from error
        return descriptor, request


def _to_json(message: Any) -> Json:  # of any service's types
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


@dataclass(slots=True)
class FrontRequest:
    """One call that the daemon serves itself."""

    call_id: int
    body: Json
    peer: Peer
    identity: Identity
    token: str
    stream: FrameStream
    data: asyncio.Queue[frames.DataFrame] = field(default_factory=lambda: asyncio.Queue(MAX_WAITING_DATA))
    """The connection's data frames while this call lasts. The call is cancelled when the client has gone."""

    async def ok(self, answer: Json) -> None:
        await self.stream.send(frames.encode_json({"id": self.call_id, "ok": answer}))

    async def item(self, item: Json) -> None:
        await self.stream.send(frames.encode_json({"id": self.call_id, "item": item}))

    async def send_data(self, channel: int, number: int, data: bytes) -> None:
        await self.stream.send(frames.encode_data(channel, number, data))

    async def end(self) -> None:
        await self.stream.send(frames.encode_json({"id": self.call_id, "end": True}))


FrontHandler = Callable[[FrontRequest], Awaitable[None]]


class FrontMetrics:
    """Calls of front ends by method and result; the methods are those that exist, so the labels are bounded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._handled = Counter("crane_front_handled", "Calls of front ends, by result.", ["method", "code"], registry=registry)
        self._seconds = Histogram(
            "crane_front_handling_seconds",
            "How long they took; streams last as long as somebody watches.",
            ["method"],
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )

    def ended(self, method: str, code: str, seconds: float) -> None:
        self._handled.labels(method, code).inc()
        self._seconds.labels(method).observe(seconds)


def identities_of_peers() -> Identities:
    """As this host's name service tells them."""
    return Inquiries(
        "the name service", lambda peer: identity_of_peer(*peer), within_s=IDENTIFIED_WITHIN_S, max_under_way=MAX_CALLS
    )


class FrontConnection:
    """One front end's connection."""

    def __init__(
        self,
        stream: FrameStream,
        peer: Peer,
        gateway: Gateway,
        minter: TokenMinter,
        handlers: Mapping[str, FrontHandler],
        metrics: FrontMetrics | None = None,
        identities: Identities | None = None,
    ) -> None:
        """`handlers` are the methods that the daemon serves itself; all others go to the gateway's service."""
        self._stream = stream
        self._peer = peer
        self._identities = identities or identities_of_peers()
        self._own_identity: Identity | None = None
        self._gateway = gateway
        self._minter = minter
        self._handlers = handlers
        self._metrics = metrics
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._receiver: FrontRequest | None = None

    async def serve(self) -> None:
        """Answers until the client goes; then cancels what is under way."""
        async with asyncio.TaskGroup() as tasks:
            try:
                self._own_identity = await self._identities.ask((self._peer.uid, self._peer.gid))
                while (frame := await self._stream.recv()) is not None:
                    if isinstance(frame, frames.JsonFrame):
                        await self._take(frame.value, tasks)
                    elif isinstance(frame, frames.DataFrame) and self._receiver is not None:
                        await self._receiver.data.put(frame)
            except CraneError as error:
                await self._answer_error(0, error)
            except ConnectionError:
                pass
            finally:
                for task in self._calls.values():
                    task.cancel()

    @property
    def _identity(self) -> Identity:
        assert self._own_identity is not None, "nothing is taken before it is known who asks"
        return self._own_identity

    async def _take(self, message: Json, tasks: asyncio.TaskGroup) -> None:
        call_id = message.get("id")
        if not isinstance(call_id, int):
            return await self._answer_error(0, _invalid("expected a number in `id`"))
        if message.get("cancel") is True:
            if (task := self._calls.get(call_id)) is not None:
                task.cancel()
            return None
        method, body = message.get("method"), message.get("body", {})
        if not isinstance(method, str) or not isinstance(body, dict):
            return await self._answer_error(call_id, _invalid("expected a name in `method` and an object in `body`"))
        if method not in self._handlers and not self._gateway.knows(method):
            return await self._answer_error(call_id, CraneError(ErrorCode.UNIMPLEMENTED, f"no method {method!r}"))
        if call_id in self._calls or len(self._calls) >= MAX_CALLS:
            error = CraneError(
                ErrorCode.RESOURCE_EXHAUSTED, f"call {call_id}: expected a new id and at most {MAX_CALLS} calls at once"
            )
            return await self._answer_error(call_id, error)
        request: FrontRequest | None = None
        if method in self._handlers:
            # Made here: data that comes right behind the request is already the call's.
            token = self._minter.mint(self._identity)
            request = FrontRequest(call_id, body, self._peer, self._identity, token, self._stream)
            self._receiver = request
        task = tasks.create_task(self._serve_call(call_id, method, body, request))
        self._calls[call_id] = task
        # Not in the task itself: one that is cancelled before it began would stay.
        task.add_done_callback(lambda _: self._forget(call_id))
        return None

    async def _serve_call(self, call_id: int, method: str, body: Json, request: FrontRequest | None) -> None:
        begun = time.perf_counter()
        code = "CANCELLED"
        try:
            if request is not None:
                await self._handlers[method](request)
            elif self._gateway.streams(method):
                async for item in self._gateway.stream(method, body, self._minter.mint(self._identity)):
                    await self._stream.send(frames.encode_json({"id": call_id, "item": item}))
                await self._stream.send(frames.encode_json({"id": call_id, "end": True}))
            else:
                answer = await self._gateway.call(method, body, self._minter.mint(self._identity))
                await self._stream.send(frames.encode_json({"id": call_id, "ok": answer}))
            code = "OK"
        except CraneError as error:
            code = error.code.name
            await self._answer_error(call_id, error)
        except ConnectionError:
            _log.debug("front.client_gone", method=method, uid=self._peer.uid)
        except Exception:  # noqa: BLE001 - a boundary: one call's fault must not end the others
            code = ErrorCode.INTERNAL.name
            _log.exception("front.call_failed", method=method, uid=self._peer.uid)
            await self._answer_error(call_id, CraneError(ErrorCode.INTERNAL, "internal error: see the daemon's log"))
        finally:
            if self._metrics is not None:
                self._metrics.ended(method, code, time.perf_counter() - begun)

    def _forget(self, call_id: int) -> None:
        """Data that nobody takes any more must not keep the connection from being read."""
        del self._calls[call_id]
        request = self._receiver
        if request is not None and request.call_id == call_id:
            self._receiver = None
            while not request.data.empty():
                request.data.get_nowait()

    async def _answer_error(self, call_id: int, error: CraneError) -> None:
        body: Json = {"code": error.code.name, "message": error.message, "retryable": error.retryable}
        if error.retry_after_s is not None:
            body["retry_after_s"] = error.retry_after_s
        try:
            await self._stream.send(frames.encode_json({"id": call_id, "error": body}))
        except ConnectionError:
            _log.debug("front.client_gone", uid=self._peer.uid)


def _invalid(message: str) -> CraneError:
    return CraneError(ErrorCode.INVALID_ARGUMENT, message)
