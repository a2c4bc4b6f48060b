"""Puts the controller's services on a server."""

import grpc

from crane.hooks.v1 import ctld_service_pb2_grpc as rpc
from cranectld.service.front import FrontService
from cranectld.service.nodes import NodeService
from cranectld.service.scheduler import SchedulerPortService

SERVICES = tuple(f"crane.hooks.v1.{name}" for name in ("ControllerService", "NodeReportService", "SchedulerService"))
"""Their full names, for reflection."""


def add_services(server: grpc.aio.Server, front: FrontService, nodes: NodeService, scheduler: SchedulerPortService) -> None:
    rpc.add_ControllerServiceServicer_to_server(front, server)
    rpc.add_NodeReportServiceServicer_to_server(nodes, server)
    rpc.add_SchedulerServiceServicer_to_server(scheduler, server)
