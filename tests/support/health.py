"""Asks a daemon for its health again and again, and notes the slowest answer.

In a process of its own: gRPC's threads do not bear the forks of a test that starts programs.
"""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

from tests.support.heartbeat import Heartbeat

_ROOT = Path(__file__).parents[2]
_PERIOD_S = 0.02
_PATIENCE_S = 60.0


class HealthWatch(Heartbeat):
    """Use as a context manager; `slowest_s` is the figure afterwards.

    Raises:
        RuntimeError: the daemon did not answer at all.
    """

    def __init__(self, address: str) -> None:
        super().__init__()
        self._command = [sys.executable, "-m", "tests.support.health", address]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        # It says when it has its first answer.
        self._process.stdout.readline()
        return self

    def __exit__(self, *_exception: object) -> None:
        said, _ = self._process.communicate()
        if self._process.returncode:
            message = f"{self._command[-1]} does not answer"
            raise RuntimeError(message)
        self.slowest_s = float(said)


def _watch(address: str) -> float:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    is_over = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        is_over.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    slowest_s = 0.0
    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its type stub lacks the methods
        request = health_pb2.HealthCheckRequest()
        # The connection is not what is measured.
        stub.Check(request, timeout=_PATIENCE_S)
        sys.stdout.write("watching\n")
        sys.stdout.flush()
        while not is_over.wait(_PERIOD_S):
            asked = time.monotonic()
            answer = stub.Check(request, timeout=_PATIENCE_S)
            slowest_s = max(slowest_s, time.monotonic() - asked)
            if answer.status != health_pb2.HealthCheckResponse.SERVING:
                raise SystemExit(1)
    return slowest_s


if __name__ == "__main__":
    sys.stdout.write(f"{_watch(sys.argv[1])}\n")
