"""What every served call gets: the caller's identity, errors as status codes, and metrics."""

import contextvars
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import grpc
import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram

from cranekit import crash_points
from cranekit.errors import CraneError, ErrorCode
from cranekit.rpc.credentials import Authenticator, Identity
from cranekit.rpc.status import STATUS, retry_metadata

_log = structlog.get_logger()

_identity: contextvars.ContextVar[Identity] = contextvars.ContextVar("crane_identity")

OPEN_SERVICES = ("grpc.health.", "grpc.reflection.")
"""Served without credentials."""

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

# Messages and contexts are of any service's types here.
_Handler = Any
_Context = Any


def current_identity() -> Identity:
    """Who the call being served comes from.

    Raises:
        CraneError: UNAUTHENTICATED, outside of an authenticated call.
    """
    try:
        return _identity.get()
    except LookupError:
        raise CraneError(ErrorCode.UNAUTHENTICATED, "the call has no credentials") from None


class RpcMetrics:
    """Served calls by method and status code, named as go-grpc-prometheus does, so that its dashboards work."""

    def __init__(self, registry: CollectorRegistry) -> None:
        method = ["grpc_service", "grpc_method", "grpc_type"]
        self._started = Counter("grpc_server_started", "Calls begun.", method, registry=registry)
        self._handled = Counter("grpc_server_handled", "Calls ended, by status.", [*method, "grpc_code"], registry=registry)
        self._seconds = Histogram(
            "grpc_server_handling_seconds", "Time from begin to end.", method, buckets=LATENCY_BUCKETS_S, registry=registry
        )

    def started(self, method: tuple[str, str, str]) -> None:
        self._started.labels(*method).inc()

    def handled(self, method: tuple[str, str, str], code: str, seconds: float) -> None:
        self._handled.labels(*method, code).inc()
        self._seconds.labels(*method).observe(seconds)


class ServerCalls(grpc.aio.ServerInterceptor):
    """Authenticates, maps errors and counts, around each handler."""

    def __init__(self, authenticator: Authenticator, metrics: RpcMetrics) -> None:
        self._authenticator = authenticator
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        path: str = handler_call_details.method
        service, _, name = path.removeprefix("/").rpartition("/")
        kind = f"{'client' if handler.request_streaming else ''}_{'server' if handler.response_streaming else ''}".strip("_")
        kind = {"": "unary", "client_server": "bidi_stream"}.get(kind, f"{kind}_stream")
        authenticator = None if service.startswith(OPEN_SERVICES) else self._authenticator
        return _Call(authenticator, self._metrics, (service, name, kind)).wrap(handler)


class _Call:
    """One method, wrapped."""

    def __init__(self, authenticator: Authenticator | None, metrics: RpcMetrics, method: tuple[str, str, str]) -> None:
        self._authenticator = authenticator
        self._metrics = metrics
        self._method = method

    def wrap(self, handler: _Handler) -> _Handler:
        if handler.response_streaming:
            make = grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
            behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream
            serve: Any = self._streaming(behaviour)
        else:
            make = grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
            behaviour = handler.stream_unary if handler.request_streaming else handler.unary_unary
            serve = self._unary(behaviour)
        return make(serve, handler.request_deserializer, handler.response_serializer)

    def _unary(self, behaviour: Callable[[Any, _Context], Awaitable[Any]]) -> Callable[[Any, _Context], Awaitable[Any]]:
        name = self._method[1]

        async def serve(request: Any, context: _Context) -> Any:
            begun = self._begin()
            code = "UNKNOWN"
            try:
                self._authenticate(context)
                crash_points.reached(f"{name}: received")
                answer = await behaviour(request, context)
                crash_points.reached(f"{name}: answers")
                code = "OK"
                return answer
            except BaseException as error:
                code, message = self._verdict(error, context)
                if message is None:
                    raise
                await context.abort(grpc.StatusCode[code], message, _trailing(error))
            finally:
                self._metrics.handled(self._method, code, time.perf_counter() - begun)

        return serve

    def _streaming(self, behaviour: Callable[[Any, _Context], Any]) -> Callable[[Any, _Context], AsyncIterator[Any]]:
        async def serve(request: Any, context: _Context) -> AsyncIterator[Any]:
            begun = self._begin()
            code = "CANCELLED"
            try:
                self._authenticate(context)
                async for answer in behaviour(request, context):
                    yield answer
                code = "OK"
            except GeneratorExit:
                raise
            except BaseException as error:
                code, message = self._verdict(error, context)
                if message is None:
                    raise
                await context.abort(grpc.StatusCode[code], message, _trailing(error))
            finally:
                self._metrics.handled(self._method, code, time.perf_counter() - begun)

        return serve

    def _begin(self) -> float:
        self._metrics.started(self._method)
        return time.perf_counter()

    def _authenticate(self, context: _Context) -> None:
        if self._authenticator is not None:
            metadata = cast("tuple[tuple[str, str | bytes], ...]", context.invocation_metadata() or ())
            _identity.set(self._authenticator.authenticate(metadata))

    def _verdict(self, error: BaseException, context: _Context) -> tuple[str, str | None]:
        """Status name, and the message to abort with; None lets the error pass (cancellation, an abort of the handler's own)."""
        if isinstance(error, CraneError):
            return STATUS[error.code].name, error.message
        if isinstance(error, grpc.aio.AbortError):
            code = context.code()
            return (code.name if isinstance(code, grpc.StatusCode) else "UNKNOWN"), None
        if not isinstance(error, Exception):
            return "CANCELLED", None
        _log.error("rpc.failed", service=self._method[0], method=self._method[1], exc_info=error)
        return "INTERNAL", "internal error: see the daemon's log"


def _trailing(error: BaseException) -> tuple[tuple[str, str], ...]:
    return retry_metadata(error) if isinstance(error, CraneError) else ()
