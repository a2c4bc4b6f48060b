"""A supervisor's memory is what its parent imports: small, and complete before the first fork."""

import subprocess
import sys

FORBIDDEN = ("grpc", "pydantic", "structlog", "prometheus_client", "typer", "rich", "yaml", "cranekit.rpc", "craned", "cranectld")
NEEDED = ("asyncio", "google.protobuf", "crane.hooks.v1.supervisor_pb2", "cranehooks.execution.asyncio_engine", "csupervisor.app")


def test_the_parent_imports_what_a_supervisor_needs_and_nothing_heavy() -> None:
    program = "import csupervisor.main, sys, threading; print(threading.active_count(), *sys.modules)"
    threads, *modules = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert threads == "1"
    assert [name for name in modules if any(name == heavy or name.startswith(f"{heavy}.") for heavy in FORBIDDEN)] == []
    assert set(NEEDED) <= set(modules)
