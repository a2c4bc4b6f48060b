"""A daemon's gRPC server: where it may listen, and what it always carries."""

import ipaddress
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from cranekit.errors import CraneError, ErrorCode
from cranekit.rpc.credentials import Authenticator
from cranekit.rpc.interceptors import RpcMetrics, ServerCalls

MAX_MESSAGE_BYTES = 16 << 20
MAX_CONCURRENT_RPCS = 4_000
"""Calls beyond this are refused with RESOURCE_EXHAUSTED; streams count."""

KEEPALIVE_S = 10.0
"""After so much silence a connection is asked whether it lives; as long later, one that does not answer is given up."""

Options = tuple[tuple[str, int | str], ...]


def connection_options(keepalive_s: float) -> Options:
    """What both ends of a connection need to notice, in bounded time, that the other end has gone without a word."""
    milliseconds = max(1, round(keepalive_s * 1000))
    return (
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", milliseconds),
        ("grpc.keepalive_timeout_ms", milliseconds),
        # The question is a ping, which has a deadline of its own: a minute, whatever the keepalive's is.
        ("grpc.http2.ping_timeout_ms", milliseconds),
        ("grpc.keepalive_permit_without_calls", 1),
        # By default a stream on which nobody says anything is asked twice and never again.
        ("grpc.http2.max_pings_without_data", 0),
    )


_SERVER_OPTIONS: Options = (
    # Whatever the other end's keepalive is, it is no reason to hang up.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 500),
    ("grpc.http2.max_ping_strikes", 0),
)


class GrpcServer:
    """Add servicers to `raw`, then `start`; `stop` before the loop ends."""

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        authenticator: Authenticator,
        registry: CollectorRegistry,
        reflected_services: Sequence[str] = (),
        keepalive_s: float = KEEPALIVE_S,
    ) -> None:
        """`addresses`: `HOST:PORT` on loopback (port 0: any) or `unix:/path`. `reflected_services` turns reflection on for these.

        Raises:
            CraneError: INVALID_ARGUMENT, a program without TLS may not listen there; FAILED_PRECONDITION, a socket's directory is not ours alone.
        """
        for address in addresses:
            check_address(address)
            if address.startswith("unix:"):
                _check_socket_directory(Path(address.removeprefix("unix:")).parent)
        self._addresses = addresses
        self.raw = grpc.aio.server(
            interceptors=(ServerCalls(authenticator, RpcMetrics(registry)),),
            options=(*connection_options(keepalive_s), *_SERVER_OPTIONS),
            maximum_concurrent_rpcs=MAX_CONCURRENT_RPCS,
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.raw)
        if reflected_services:
            from grpc_reflection.v1alpha import reflection  # off by default, so not loaded by default

            names = (*reflected_services, reflection.SERVICE_NAME, health.SERVICE_NAME)
            reflection.enable_server_reflection(names, self.raw)

    async def start(self) -> list[str]:
        """Serves. Returns the addresses with their real ports.

        Raises:
            CraneError: UNAVAILABLE, an address cannot be bound.
        """
        bound = [self._bind(address) for address in self._addresses]
        await self.raw.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        return bound

    def _bind(self, address: str) -> str:
        try:
            port = self.raw.add_insecure_port(address)
        except RuntimeError as error:
            raise CraneError(ErrorCode.UNAVAILABLE, f"cannot listen on {address}: {error}") from error
        if address.startswith("unix:"):
            return address
        return f"{address.rpartition(':')[0]}:{port}"

    async def stop(self, grace_s: float) -> None:
        """Says that it stops serving, waits for calls under way for `grace_s`, then ends them."""
        await self._health.enter_graceful_shutdown()
        await self.raw.stop(grace_s)


def check_address(address: str) -> None:
    """Whether a program without TLS may listen there.

    Raises:
        CraneError: INVALID_ARGUMENT.
    """
    if address.startswith("unix:"):
        if not address.removeprefix("unix:").startswith("/"):
            raise CraneError(ErrorCode.INVALID_ARGUMENT, f"{address}: expected unix:/absolute/path")
        return
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535:
        raise CraneError(ErrorCode.INVALID_ARGUMENT, f"{address}: expected HOST:PORT or unix:/path")
    if host == "localhost":
        return
    try:
        is_loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        message = f"{address}: without TLS a program listens on loopback (127.0.0.1, [::1]) or a Unix socket only"
        raise CraneError(ErrorCode.INVALID_ARGUMENT, message)


def _check_socket_directory(directory: Path) -> None:
    try:
        status = directory.stat()
    except OSError as error:
        raise CraneError(ErrorCode.FAILED_PRECONDITION, f"socket directory {directory}: {error.strerror}") from error
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        message = f"socket directory {directory}: mode {mode:04o} of uid {status.st_uid}: expected 0700 of uid {os.geteuid()}"
        raise CraneError(ErrorCode.FAILED_PRECONDITION, message)
