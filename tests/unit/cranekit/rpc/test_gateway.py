import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import Default
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from cranekit import frames
from cranekit.aio_frames import FrameStream
from cranekit.errors import CraneError, ErrorCode
from cranekit.local_socket import Peer, serve_local
from cranekit.rpc.channel import open_channel
from cranekit.rpc.credentials import Authenticator, Role, TokenMinter, daemon_metadata
from cranekit.rpc.gateway import FrontConnection, FrontRequest, Gateway
from cranekit.rpc.interceptors import current_identity
from cranekit.rpc.server import GrpcServer, check_address
from cranekit.rpc.status import STATUS, error_from_rpc

SECRET = b"s" * 32


def _service() -> Any:  # a descriptor of the C implementation
    file = FileDescriptorProto(name="cranekit_test/echo.proto", package="cranekit_test", syntax="proto3")
    message = file.message_type.add(name="Text")
    message.field.add(
        name="some_text", number=1, type=FieldDescriptorProto.TYPE_STRING, label=FieldDescriptorProto.LABEL_OPTIONAL
    )
    message.field.add(name="count", number=2, type=FieldDescriptorProto.TYPE_UINT64, label=FieldDescriptorProto.LABEL_OPTIONAL)
    service = file.service.add(name="Echo")
    service.method.add(name="Say", input_type=".cranekit_test.Text", output_type=".cranekit_test.Text")
    service.method.add(name="Repeat", input_type=".cranekit_test.Text", output_type=".cranekit_test.Text", server_streaming=True)
    with contextlib.suppress(TypeError):
        Default().AddSerializedFile(file.SerializeToString())
    return Default().FindServiceByName("cranekit_test.Echo")


SERVICE = _service()
Text: Any = GetMessageClass(SERVICE.methods_by_name["Say"].input_type)


class Echo:
    """Says who called; fails as told; repeats until `count`, or forever."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()

    async def say(self, request: Any, _: Any) -> Any:  # messages made at run time
        if request.some_text == "missing":
            raise CraneError(ErrorCode.NOT_FOUND, "no such thing")
        if request.some_text == "fault":
            raise ZeroDivisionError("a secret detail")
        who = current_identity()
        return Text(some_text=f"{who.role.value} {who.name or who.user}", count=request.count)

    async def repeat(self, request: Any, _: Any) -> AsyncIterator[Any]:
        try:
            for index in range(request.count):
                yield Text(some_text=request.some_text, count=index)
            if request.some_text == "forever":
                await asyncio.Event().wait()
            if request.some_text == "missing":
                raise CraneError(ErrorCode.NOT_FOUND, "no more")
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@pytest.fixture
def directory() -> Iterator[Path]:
    with TemporaryDirectory(prefix="crane-") as name:
        yield Path(name)


class Cluster:
    """A served Echo with its metrics."""

    def __init__(self, address: str, echo: Echo, registry: CollectorRegistry) -> None:
        self.address = address
        self.echo = echo
        self.registry = registry


@pytest.fixture
async def cluster(directory: Path) -> AsyncIterator[Cluster]:
    registry, echo = CollectorRegistry(), Echo()
    address = f"unix:{directory}/ctld.sock"
    server = GrpcServer([address], authenticator=Authenticator(SECRET, "alpha"), registry=registry)
    coding = {"request_deserializer": Text.FromString, "response_serializer": Text.SerializeToString}
    handlers = {
        "Say": grpc.unary_unary_rpc_method_handler(echo.say, **coding),
        "Repeat": grpc.unary_stream_rpc_method_handler(echo.repeat, **coding),
    }
    server.raw.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("cranekit_test.Echo", handlers),))
    await server.start()
    try:
        yield Cluster(address, echo, registry)
    finally:
        await server.stop(0)


async def _upload(request: FrontRequest) -> None:
    """Counts data until an empty frame."""
    total = 0
    while data := (await request.data.get()).data:
        total += len(data)
    await request.ok({"bytes": total, "uid": request.identity.uid})


async def _idle(request: FrontRequest) -> None:
    """Ends without taking any data."""
    await request.ok({})


class Front:
    """A front end's connection."""

    def __init__(self, stream: FrameStream) -> None:
        self.stream = stream

    async def send(self, **message: object) -> None:
        await self.stream.send(frames.encode_json(message))

    async def answer(self) -> dict[str, Any]:
        frame = await self.stream.recv()
        assert isinstance(frame, frames.JsonFrame)
        return frame.value


@pytest.fixture
async def front(cluster: Cluster, directory: Path) -> AsyncIterator[Front]:
    async with open_channel(cluster.address) as channel:

        async def serve(stream: FrameStream, peer: Peer) -> None:
            gateway, minter = Gateway(channel, SERVICE), TokenMinter(SECRET, "alpha")
            await FrontConnection(stream, peer, gateway, minter, {"Upload": _upload, "Idle": _idle}).serve()

        path = directory / "front.sock"
        async with serve_local(path, 0o600, serve):
            stream = FrameStream(*await asyncio.open_unix_connection(path))
            try:
                yield Front(stream)
            finally:
                await stream.close()


async def test_a_call_is_made_as_the_peer(front: Front) -> None:
    await front.send(id=1, method="Say", body={"count": "18446744073709551615"})
    answer = await front.answer()
    assert answer["id"] == 1
    assert answer["ok"]["some_text"].startswith("user ")
    assert answer["ok"]["count"] == "18446744073709551615"
    await front.send(id=2, method="Say", body={"count": 0})
    assert (await front.answer())["ok"]["count"] == "0"


async def test_refusals_keep_their_code_and_faults_their_details(front: Front) -> None:
    for text, code, message in (
        ("missing", "NOT_FOUND", "no such thing"),
        ("fault", "INTERNAL", "internal error: see the daemon's log"),
    ):
        await front.send(id=1, method="Say", body={"some_text": text})
        error = (await front.answer())["error"]
        assert (error["code"], error["message"]) == (code, message)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"id": 1, "method": "Sya"}, "UNIMPLEMENTED"),
        ({"id": 1, "method": "Say", "body": {"unknown": 1}}, "INVALID_ARGUMENT"),
        ({"id": 1, "method": "Say", "body": {"count": -1}}, "INVALID_ARGUMENT"),
        ({"id": 1, "method": "Say", "body": []}, "INVALID_ARGUMENT"),
        ({"id": 1}, "INVALID_ARGUMENT"),
        ({"method": "Say"}, "INVALID_ARGUMENT"),
        ({}, "INVALID_ARGUMENT"),
    ],
)
async def test_bad_requests_are_told_and_the_connection_lives(front: Front, message: dict[str, Any], code: str) -> None:
    await front.send(**message)
    assert (await front.answer())["error"]["code"] == code
    await front.send(id=9, method="Say")
    assert "ok" in await front.answer()


async def test_a_stream_has_items_and_an_end(front: Front) -> None:
    await front.send(id=1, method="Repeat", body={"some_text": "a", "count": 2})
    assert [await front.answer() for _ in range(3)] == [
        {"id": 1, "item": {"some_text": "a", "count": "0"}},
        {"id": 1, "item": {"some_text": "a", "count": "1"}},
        {"id": 1, "end": True},
    ]
    await front.send(id=2, method="Repeat", body={"some_text": "missing"})
    assert (await front.answer())["error"]["code"] == "NOT_FOUND"


async def test_calls_run_side_by_side_and_can_be_cancelled(front: Front, cluster: Cluster) -> None:
    await front.send(id=1, method="Repeat", body={"some_text": "forever", "count": 1})
    assert "item" in await front.answer()
    await front.send(id=2, method="Say")
    assert (await front.answer())["id"] == 2
    await front.send(id=1, cancel=True)
    async with asyncio.timeout(20):
        await cluster.echo.cancelled.wait()


async def test_hanging_up_cancels_the_calls(front: Front, cluster: Cluster) -> None:
    await front.send(id=1, method="Repeat", body={"some_text": "forever", "count": 1})
    assert "item" in await front.answer()
    await front.stream.close()
    async with asyncio.timeout(20):
        await cluster.echo.cancelled.wait()


async def test_requests_cancelled_at_once_leave_room_for_others(front: Front) -> None:
    for number in range(200):
        # In one piece, so that the call is cancelled before it began.
        request = {"id": number, "method": "Repeat", "body": {"some_text": "forever"}}
        await front.stream.send(frames.encode_json(request) + frames.encode_json({"id": number, "cancel": True}))
        await front.send(id=1_000, method="Say")
        assert "ok" in await front.answer()


async def test_data_reaches_the_daemons_own_methods(front: Front) -> None:
    await front.send(id=1, method="Upload")
    for _ in range(300):
        await front.stream.send(frames.encode_data(0, 0, b"x" * 1_000))
    await front.stream.send(frames.encode_data(0, 0, b""))
    assert await front.answer() == {"id": 1, "ok": {"bytes": 300_000, "uid": os.geteuid()}}


async def test_data_that_nobody_takes_does_not_block_the_connection(front: Front) -> None:
    await front.send(id=1, method="Idle")
    for _ in range(300):
        await front.stream.send(frames.encode_data(0, 0, b"x"))
    await front.send(id=2, method="Say")
    assert [(await front.answer())["id"] for _ in range(2)] == [1, 2]


async def test_daemons_call_with_the_secret_and_strangers_are_refused(cluster: Cluster) -> None:
    path, coding = "/cranekit_test.Echo/Say", (Text.SerializeToString, Text.FromString)
    async with open_channel(cluster.address, metadata=daemon_metadata(SECRET, Role.NODE, "cn01")) as channel:
        assert (await channel.unary_unary(path, *coding)(Text())).some_text == "node cn01"
    async with open_channel(cluster.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(path, *coding)(Text())
        assert error_from_rpc(caught.value).code is ErrorCode.UNAUTHENTICATED
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its type stub lacks the methods
        healthy = await stub.Check(health_pb2.HealthCheckRequest())
        assert healthy.status == health_pb2.HealthCheckResponse.SERVING
    labels = {"grpc_service": "cranekit_test.Echo", "grpc_method": "Say", "grpc_type": "unary"}
    assert cluster.registry.get_sample_value("grpc_server_started_total", labels) == 2
    for code in ("OK", "UNAUTHENTICATED"):
        assert cluster.registry.get_sample_value("grpc_server_handled_total", {**labels, "grpc_code": code}) == 1
    assert cluster.registry.get_sample_value("grpc_server_handling_seconds_count", labels) == 2


def test_every_error_has_a_status() -> None:
    assert set(STATUS) == set(ErrorCode)
    assert len(set(STATUS.values())) == len(STATUS)


@pytest.mark.parametrize("address", ["0.0.0.0:1", "example.org:1", "192.0.2.1:1", "127.0.0.1", "127.0.0.1:x", "unix:relative"])
def test_addresses_that_will_not_do(address: str) -> None:
    with pytest.raises(CraneError) as caught:
        check_address(address)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


def test_a_socket_in_an_open_directory_is_refused(directory: Path) -> None:
    directory.chmod(0o755)
    with pytest.raises(CraneError, match="expected 0700"):
        GrpcServer([f"unix:{directory}/s"], authenticator=Authenticator(SECRET, "a"), registry=CollectorRegistry())


async def test_a_free_port_is_taken_and_told() -> None:
    server = GrpcServer(["127.0.0.1:0"], authenticator=Authenticator(SECRET, "a"), registry=CollectorRegistry())
    (address,) = await server.start()
    assert int(address.rpartition(":")[2]) > 0
    await server.stop(0)
