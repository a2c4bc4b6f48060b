"""What tools find out about a running controller without credentials: health always, the services' descriptions only on request."""

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.component.cranectld.conftest import Site


def described(address: str) -> list[str]:
    """The methods of the scheduler's service, as reflection tells them."""
    with grpc.insecure_channel(address) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        service = pool.FindServiceByName("crane.hooks.v1.SchedulerService")
        return [method.name for method in service.methods]


async def test_health_is_open_to_all(site: Site) -> None:
    await site.start()

    async with grpc.aio.insecure_channel(site.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its stubs know no methods
        answer = await stub.Check(health_pb2.HealthCheckRequest())

    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_services_are_described_when_that_is_wanted(site: Site) -> None:
    site.extra = "EnableReflection: true"
    await site.start()

    assert "AllocateJob" in await asyncio.to_thread(described, site.address)


async def test_services_are_not_described_by_default(site: Site) -> None:
    await site.start()

    with pytest.raises((KeyError, grpc.RpcError)):
        await asyncio.to_thread(described, site.address)
