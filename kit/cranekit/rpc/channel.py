"""A client's channel: credentials on every call, a deadline on every unary one, quick reconnects."""

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from cranekit import crash_points
from cranekit.rpc.server import KEEPALIVE_S, connection_options

DEFAULT_DEADLINE_S = 10.0

_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 3,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)

_CHANNEL_OPTIONS = (
    ("grpc.service_config", _SERVICE_CONFIG),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_http_proxy", 0),
)


def open_channel(address: str, *, metadata: Sequence[tuple[str, str]] = (), keepalive_s: float = KEEPALIVE_S) -> grpc.aio.Channel:
    """A channel to `HOST:PORT` or `unix:/path`, as an async context manager or to be closed. Connects when first used.

    `metadata` goes with every call. A unary call without a deadline gets one of 10 s. A connection that is silent for `keepalive_s` is asked
    whether it lives, and replaced when it does not answer for as long.
    """
    details = _Details(tuple(metadata))
    return grpc.aio.insecure_channel(
        address,
        options=(*connection_options(keepalive_s), *_CHANNEL_OPTIONS),
        interceptors=[_UnaryUnary(details), _UnaryStream(details), _StreamStream(details)],
    )


class _Details:
    def __init__(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata

    def completed(self, details: grpc.aio.ClientCallDetails, deadline_s: float | None) -> grpc.aio.ClientCallDetails:
        metadata = grpc.aio.Metadata(*self._metadata)
        for key, value in details.metadata or ():
            metadata.add(key, value)
        return grpc.aio.ClientCallDetails(
            method=details.method,
            timeout=details.timeout if details.timeout is not None else deadline_s,
            metadata=metadata,
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
        )


def _name_of(details: grpc.aio.ClientCallDetails) -> str:
    # Bytes, whatever the annotation says.
    return os.fsdecode(details.method).rpartition("/")[2]


# The messages below are of any service's types.


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, details: _Details) -> None:
        self._details = details

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        crash_points.reached(f"{_name_of(client_call_details)}: calls")
        call = await continuation(self._details.completed(client_call_details, DEFAULT_DEADLINE_S), request)
        if crash_points.are_planned:
            call.add_done_callback(lambda _: crash_points.reached(f"{_name_of(client_call_details)}: answered"))
        return call


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, details: _Details) -> None:
        self._details = details

    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(self._details.completed(client_call_details, None), request)


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):
    def __init__(self, details: _Details) -> None:
        self._details = details

    async def intercept_stream_stream(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request_iterator: Any
    ) -> Any:
        return await continuation(self._details.completed(client_call_details, None), request_iterator)
