"""A daemon's life: start, say that it serves, reload, stop when asked, and exit at once when asked twice."""

import asyncio
import json
import os
import signal
import socket
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from cranekit.errors import CraneError

_log = structlog.get_logger()

EXIT_OK = 0
EXIT_FAILED = 1
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


OOM_SCORE_ADJ = -900
"""Of a daemon that protects itself: the kernel takes it last, and yet before the machine stands still."""


def protect_from_oom_killer(path: Path = Path("/proc/self/oom_score_adj")) -> bool:
    """Has the kernel, short of memory, kill others first. Whoever started us decides if they have set a value; False: it is not ours to set.

    Children inherit it: what runs on behalf of others must be given back its 0.
    """
    if os.geteuid() != 0:
        return False
    try:
        if int(path.read_text(encoding="ascii")) == 0:
            path.write_text(str(OOM_SCORE_ADJ), encoding="ascii")
    except OSError as error:
        # In a container root may lack the right.
        _log.warning("daemon.unprotected", what="oom_score_adj", error=error.strerror)
        return False
    return True


class Stop:
    """Becomes set when the daemon shall stop, with the reason."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.reason = ""

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def set(self, reason: str) -> None:
        """The first reason stays."""
        if not self._event.is_set():
            self.reason = reason
            self._event.set()

    async def wait(self) -> None:
        await self._event.wait()


Main = Callable[[Stop], Awaitable[None]]
Reload = Callable[[], Awaitable[None]]


def run_daemon(main: Main, *, reload: Reload | None = None) -> int:
    """Runs `main` on a loop until it returns, and returns the exit status.

    SIGTERM and SIGINT set the `Stop` that `main` got: it shall finish and return. A second one ends the process at once, with 128 + its number. SIGHUP calls
    `reload`, one at a time; one that comes during a reload is followed by another reload. What `reload` raises is logged and ends nothing. A `CraneError` out of
    `main` is told as its message; anything else with its traceback; both make the status 1.
    """
    try:
        asyncio.run(_live(main, reload))
    except Exception as error:  # noqa: BLE001 - the boundary of the program
        _tell(error)
        return EXIT_FAILED
    return EXIT_OK


async def _live(main: Main, reload: Reload | None) -> None:
    loop = asyncio.get_running_loop()
    stop = Stop()
    reload_wanted = asyncio.Event()

    def stop_signal(number: signal.Signals) -> None:
        if stop.is_set:
            _log.warning("daemon.killed", signal=number.name)
            os._exit(128 + number)
        _log.info("daemon.stopping", signal=number.name)
        notify("STOPPING=1")
        stop.set(number.name)

    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, stop_signal, number)
    loop.add_signal_handler(signal.SIGHUP, reload_wanted.set)
    loop.set_exception_handler(_log_stray)
    try:
        async with asyncio.TaskGroup() as tasks:
            reloads = tasks.create_task(_reload_when_wanted(reload, reload_wanted))
            try:
                await main(stop)
            finally:
                reloads.cancel()
    finally:
        for number in (*_STOP_SIGNALS, signal.SIGHUP):
            loop.remove_signal_handler(number)


async def _reload_when_wanted(reload: Reload | None, wanted: asyncio.Event) -> None:
    while True:
        await wanted.wait()
        wanted.clear()
        if reload is None:
            _log.info("daemon.reload_ignored")
            continue
        try:
            await reload()
        except CraneError as error:
            _log.error("daemon.reload_failed", error=str(error))
        except Exception:  # noqa: BLE001 - a boundary: the daemon goes on with what it had
            _log.exception("daemon.reload_failed")


def _log_stray(_: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:  # as asyncio gives it
    _log.error("daemon.stray_exception", what=context.get("message"), exc_info=context.get("exception"))


def _tell(error: Exception) -> None:
    """Logs why the daemon failed; errors of a task group one by one."""
    if isinstance(error, ExceptionGroup):
        for inner in error.exceptions:
            _tell(inner)
    elif isinstance(error, CraneError):
        _log.error("daemon.failed", error=str(error))
    else:
        _log.error("daemon.failed", exc_info=error)


def notify(state: str) -> bool:
    """Tells systemd, such as `READY=1`. False without a systemd that listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(state.encode(), address)
    except OSError as error:
        _log.warning("daemon.notify_failed", state=state, error=str(error))
        return False
    return True


def announce_ready(path: Path | None, facts: Mapping[str, object]) -> None:
    """Says that the daemon serves: in the ready file, if one is wanted, and to systemd."""
    if path is not None:
        write_ready(path, facts)
    notify("READY=1")


def write_ready(path: Path, facts: Mapping[str, object]) -> None:
    """Writes a JSON file that tells a launcher where the daemon serves. It is there whole, or not at all.

    Raises:
        OSError: it cannot be written.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    written = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(facts, file)
        written.replace(path)
    except BaseException:
        written.unlink(missing_ok=True)
        raise
