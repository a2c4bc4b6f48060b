"""The socket of the front ends: relays a user's calls to the controller, and answers two of them itself."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc

from crane.hooks.v1 import ctld_service_pb2
from craned.front.stdio_client import StepJoin, step_of
from cranehooks.model.ids import NodeName
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookSettings
from cranekit.aio_frames import FrameStream
from cranekit.local_socket import Peer, serve_local
from cranekit.rpc.credentials import TokenMinter
from cranekit.rpc.gateway import FrontConnection, FrontMetrics, FrontRequest, Gateway, identities_of_peers

SOCKET_MODE: Final = 0o666
"""For every user: who calls is read from the connection."""


class FrontDesk:
    """Serves front ends on this host."""

    def __init__(
        self,
        node: NodeName | None,
        cluster: str,
        hooks: Callable[[], HookSettings],
        channel: grpc.aio.Channel,
        minter: TokenMinter,
        metrics: FrontMetrics,
        keepalive_s: float,
    ) -> None:
        """`node`: None on a login host. `channel` leads to the controller and carries no credentials of its own; `keepalive_s` is for the
        connections to the nodes of a step.
        """
        self._keepalive_s = keepalive_s
        self._node = node
        self._cluster = cluster
        self._hooks = hooks
        self._minter = minter
        self._metrics = metrics
        self._identities = identities_of_peers()
        self._gateway = Gateway(channel, ctld_service_pb2.DESCRIPTOR.services_by_name["ControllerService"], "the controller")

    @asynccontextmanager
    async def serving(self, path: Path) -> AsyncIterator[None]:
        """The socket, while the context is open."""
        async with serve_local(path, SOCKET_MODE, self._serve):
            yield

    async def _serve(self, stream: FrameStream, peer: Peer) -> None:
        handlers = {"LaunchHooks": self._launch_hooks, "AttachStep": self._attach_step}
        await FrontConnection(stream, peer, self._gateway, self._minter, handlers, self._metrics, self._identities).serve()

    async def _launch_hooks(self, request: FrontRequest) -> None:
        """What crun must know to run its own hooks."""
        hooks = self._hooks()
        await request.ok(
            {
                "node": self._node or "",
                "cluster": self._cluster,
                "crun_prolog": _point(hooks, HookPoint.CRUN_PROLOG),
                "crun_epilog": _point(hooks, HookPoint.CRUN_EPILOG),
                "profile": hooks.profile,
                "overrides": dict(hooks.overrides),
                "grace_s": hooks.grace_s,
                "output_limit_bytes": hooks.output_limit_bytes,
                "slurm_compatible_env": hooks.slurm_compatible_env,
                "config_dir": hooks.config_dir,
            }
        )

    async def _attach_step(self, request: FrontRequest) -> None:
        await StepJoin(request, step_of(request.body), lambda: self._minter.mint(request.identity), self._keepalive_s).run()


def _point(hooks: HookSettings, point: HookPoint) -> dict[str, Any]:  # JSON
    return {"patterns": list(hooks.patterns.get(point, ())), "timeout_s": hooks.timeouts_s.get(point)}
