"""A bad network for tests: a TCP proxy between two programs that delays, swallows, cuts, or keeps silent, as a test says.

It runs on an event loop of its own, in a thread, so that tests that block can steer it.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Self, TypeVar

CHUNK_BYTES = 64 << 10
DIAL_S = 5.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Weather:
    """What happens to what passes. A connection that has lost bytes is reset when the weather is good again."""

    delay_s: float = 0.0
    """Every piece comes so much later."""
    bytes_per_s: float = 0.0
    """So much passes; 0: no limit."""
    swallows: bool = False
    """Connections are accepted, what is sent is read, and nothing comes out."""
    refuses: bool = False
    """New connections are reset."""


FAIR = Weather()


class _Connection:
    """One connection, and the other one that the proxy has made for it."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.client = client
        self.server: asyncio.StreamWriter | None = None
        self.moves = asyncio.Event()
        self.moves.set()
        self.has_lost_bytes = False
        self.late_s: float | None = None
        """The client's side is cut; what it has sent comes to the server so much later."""

    def reset(self) -> None:
        for writer in (self.client, self.server):
            if writer is not None:
                _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if not writer.transport.is_closing() and connection is not None and connection.family == socket.AF_INET:
        # Closing says RST in place of FIN.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Proxy:
    """Between whoever dials `address` and whoever listens at `upstream` (`HOST:PORT` or `unix:/path`)."""

    def __init__(self, network: "Network", upstream: str) -> None:
        self._network = network
        self._upstream = upstream
        self._weather = FAIR
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self.address = ""
        self.accepted = 0
        """Connections so far."""
        self.swallowed = 0
        """Pieces so far."""
        self.brought_late = 0
        """The same, after their connection was cut."""

    # For tests, from their own thread.

    def change(self, weather: Weather) -> None:
        """From now on, for old and new connections."""
        self._network.do(self._change(weather))

    def cut(self, weather: Weather = FAIR) -> None:
        """Resets every connection; new ones meet `weather`."""
        self._network.do(self._cut(weather))

    def half_open(self) -> None:
        """Every connection of this moment is dead for ever, and neither end is told; new ones pass."""
        self._network.do(self._half_open())

    def reorder(self, late_s: float) -> None:
        """Cuts every connection for those who dialled; what they had sent in the last moments comes `late_s` later, after what they send anew."""
        self._network.do(self._reorder(late_s))

    # On the proxy's loop.

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=CHUNK_BYTES)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._cut(FAIR)

    async def _change(self, weather: Weather) -> None:
        self._weather = weather
        if not weather.swallows:
            for connection in [each for each in self._connections if each.has_lost_bytes]:
                connection.reset()

    async def _cut(self, weather: Weather) -> None:
        self._weather = weather
        for connection in list(self._connections):
            connection.reset()

    async def _half_open(self) -> None:
        for connection in self._connections:
            connection.moves.clear()

    async def _reorder(self, late_s: float) -> None:
        for connection in self._connections:
            connection.late_s = late_s

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        connection = _Connection(writer)
        if self._weather.refuses:
            connection.reset()
            return
        self._connections.add(connection)
        try:
            async with asyncio.timeout(DIAL_S):
                upstream, connection.server = await self._dial()
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(connection, reader, connection.server, is_from_client=True))
                pumps.create_task(self._pump(connection, upstream, writer, is_from_client=False))
        except (OSError, TimeoutError, ExceptionGroup, asyncio.CancelledError):
            # Cancelled: the network is taken down.
            connection.reset()
        finally:
            self._connections.discard(connection)
            for each in (writer, connection.server):
                if each is not None:
                    each.close()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._upstream.startswith("unix:"):
            return await asyncio.open_unix_connection(self._upstream.removeprefix("unix:"), limit=CHUNK_BYTES)
        host, _, port = self._upstream.rpartition(":")
        return await asyncio.open_connection(host, int(port), limit=CHUNK_BYTES)

    async def _pump(
        self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_from_client: bool
    ) -> None:
        while True:
            await connection.moves.wait()
            data = await reader.read(CHUNK_BYTES)
            await connection.moves.wait()
            if connection.late_s is not None:
                if not is_from_client and data:
                    continue  # nobody is there to get it
                _reset(connection.client)
                if is_from_client and data:
                    await asyncio.sleep(connection.late_s)
                    writer.write(data)
                    await writer.drain()
                    self.brought_late += 1
                message = "the connection is over"
                raise ConnectionResetError(message)
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            weather = self._weather
            if weather.swallows:
                connection.has_lost_bytes = True
                self.swallowed += 1
                continue
            await asyncio.sleep(weather.delay_s + (len(data) / weather.bytes_per_s if weather.bytes_per_s else 0.0))
            writer.write(data)
            await writer.drain()


class Network:
    """The thread with the proxies' loop. Use as a context manager, or call `start` and `stop`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="network")
        self._proxies: list[Proxy] = []
        self.links: dict[str, Proxy] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends everything; safe to repeat."""
        if self._loop.is_closed():
            return
        if self._thread.is_alive():
            for proxy in self._proxies:
                self.do(proxy.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Does something on the loop, and waits for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DIAL_S + 5)

    def proxy(self, upstream: str, name: str = "") -> Proxy:
        """A new one in fair weather, which is in `links` by its name."""
        proxy = Proxy(self, upstream)
        self.do(proxy.open())
        self._proxies.append(proxy)
        self.links[name or proxy.address] = proxy
        return proxy

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        # What the proxies have left to do ends with them.
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._loop.run_until_complete(asyncio.wait(tasks))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
