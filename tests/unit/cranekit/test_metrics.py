import socket
from urllib.request import urlopen

import pytest

from cranekit.errors import CraneError, ErrorCode
from cranekit.metrics import MetricsServer, make_registry


def test_build_and_process_are_served() -> None:
    registry = make_registry("craned", "1.2.3")
    with MetricsServer(registry, "127.0.0.1:0") as server, urlopen(f"http://{server.address}/metrics") as answer:
        text = answer.read().decode()
    assert 'crane_build_info{program="craned",python=' in text
    assert "process_resident_memory_bytes" in text


def test_registries_are_apart() -> None:
    assert make_registry("a", "1") is not make_registry("b", "1")


def test_after_closing_nobody_listens() -> None:
    server = MetricsServer(make_registry("craned", "1"), "127.0.0.1:0")
    server.close()
    server.close()
    host, _, port = server.address.rpartition(":")
    with socket.socket() as client:
        assert client.connect_ex((host, int(port))) != 0


def test_a_port_in_use() -> None:
    with MetricsServer(make_registry("craned", "1"), "127.0.0.1:0") as server, pytest.raises(CraneError) as caught:
        MetricsServer(make_registry("craned", "1"), server.address)
    assert caught.value.code is ErrorCode.UNAVAILABLE


@pytest.mark.parametrize("address", ["", "9090", ":9090", "localhost:", "localhost:x", "localhost:70000"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(CraneError, match="expected HOST:PORT"):
        MetricsServer(make_registry("craned", "1"), address)
