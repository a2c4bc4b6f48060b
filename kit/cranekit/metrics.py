"""A daemon's metrics: one registry, served to Prometheus over HTTP."""

import platform
import threading
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry, Gauge, PlatformCollector, ProcessCollector, start_http_server

from cranekit.errors import CraneError, ErrorCode

BUILD_INFO = "crane_build_info"


def make_registry(program: str, version: str) -> CollectorRegistry:
    """A registry with what every daemon shows: the build, the process and the Python it runs on."""
    registry = CollectorRegistry(auto_describe=True)
    build = Gauge(BUILD_INFO, "Always 1; the labels say what runs.", ["program", "version", "python"], registry=registry)
    build.labels(program, version, platform.python_version()).set(1)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


class MetricsServer:
    """Serves a registry from a thread of its own until closed."""

    def __init__(self, registry: CollectorRegistry, address: str) -> None:
        """Serves at once. `address` is `HOST:PORT`; port 0 takes any that is free.

        Raises:
            CraneError: INVALID_ARGUMENT, no such address; UNAVAILABLE, it cannot be bound.
        """
        host, colon, port = address.rpartition(":")
        if not colon or not host or not (port.isascii() and port.isdecimal()) or int(port) > 65_535:
            raise CraneError(ErrorCode.INVALID_ARGUMENT, f"metrics address {address!r}: expected HOST:PORT")
        try:
            self._server, self._thread = start_http_server(int(port), host.strip("[]"), registry)
        except OSError as error:
            message = f"cannot serve metrics on {address}: {error.strerror or error}"
            raise CraneError(ErrorCode.UNAVAILABLE, message) from error
        self._closing = threading.Lock()
        self._is_closed = False
        self.address = f"{host}:{self._server.server_port}"
        """Where it serves, with the real port."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stops serving and waits for the thread, half a second at most. Safe to repeat."""
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
