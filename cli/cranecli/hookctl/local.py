"""`hookctl local`: a cluster on this machine, for a command or until interrupted."""

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from cranecli.hookctl.failure import CommandError, ExitCode
from cranecli.hookctl.page import note

if TYPE_CHECKING:
    from cranecli.hookctl.local_cluster import LocalCluster

_NOT_FOUND = 127
_NOT_EXECUTABLE = 126


def local(
    *,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- COMMAND", help="Runs in the cluster, then it is stopped.", show_default=False),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "-c", "--config", metavar="FILE", help="Hooks, nodes and settings to try; addresses and directories are replaced."
        ),
    ] = None,
    nodes: Annotated[
        int | None,
        typer.Option("-N", "--nodes", metavar="N", min=1, max=32, help="How many nodes (default 2, or those of FILE)."),
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option("--state-dir", metavar="DIR", help="Where everything is kept (default: a new directory).")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the state directory when the cluster has stopped.")] = False,
    unix: Annotated[bool, typer.Option("--unix", help="Daemons talk over Unix sockets in place of loopback TCP.")] = False,
) -> None:
    """Run a whole cluster on this machine.

    A controller, nodes and a launch host, as real processes: to try hooks before they are trusted.

    With COMMAND the exit status is the command's; without, the cluster runs until it is interrupted.
    """
    from cranecli.hookctl.local_cluster import LocalCluster
    from cranecli.hookctl.local_config import check_hooks
    from cranecli.hookctl.local_daemons import StartError
    from cranecli.hookctl.progress import progress_line

    if config is not None:
        check_hooks(config)
    with progress_line() as progress, interruptible():
        try:
            cluster = LocalCluster(nodes, config, state_dir, unix=unix, keep=keep, progress=progress)
            with cluster:
                progress("")
                status = run_inside(cluster, command) if command else _until_interrupted(cluster)
        except StartError as error:
            progress("")
            raise CommandError(str(error)) from error
    raise typer.Exit(status)


@contextmanager
def interruptible() -> Iterator[None]:
    """TERM and HUP end the program as an interrupt does, so that everything is stopped on the way out."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    previous = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def run_inside(cluster: "LocalCluster", command: Sequence[str], extra: Mapping[str, str] | None = None) -> int:
    """Runs a command with the cluster's environment and this terminal; its status as a shell reports it."""
    import subprocess

    try:
        process = subprocess.Popen(list(command), env={**cluster.env, **(extra or {})})
    except OSError as error:
        note(f"hookctl: error: cannot run {command[0]}: {os.strerror(error.errno or 0).lower()}")
        return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
    # An interrupt on the terminal reaches the command, too: what it means is the command's to say.
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        status = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGINT, previous)
    return 128 - status if status < 0 else status


def _show_endpoints(cluster: "LocalCluster") -> None:
    from cranecli.hookctl.local_config import CONTROLLER, LOGIN
    from cranecli.render.style import style_of
    from cranecli.render.table import Column, table
    from cranekit import hostlist

    rows = []
    for name, daemon in cluster.daemons.items():
        what = {CONTROLLER: "controller", LOGIN: "launch host"}.get(name, "node")
        metrics = str(daemon.ready.get("metrics") or "")
        url = metrics if not metrics or "://" in metrics else f"http://{metrics}/metrics"
        rows.append(
            [name, what, str(daemon.ready.get("address") or f"unix:{daemon.ready.get('front_socket')}"), url, str(daemon.log)]
        )
    print(
        f"A cluster with {hostlist.fold(list(cluster.node_names))} runs here until it is interrupted (Ctrl-C). For another shell:\n"
    )
    for variable in ("CRANE_FRONT_SOCKET", "CRANE_CONFIG_FILE", "CRANE_LOCAL_STATE_DIR"):
        print(f"  export {variable}={cluster.env[variable]}")
    print(f"  export PATH={Path(sys.executable).parent}:$PATH\n")
    for line in table(
        [Column("DAEMON"), Column("WHAT"), Column("ADDRESS"), Column("METRICS"), Column("LOG")], rows, style_of(sys.stdout)
    ):
        print(line)
    sys.stdout.flush()


def _until_interrupted(cluster: "LocalCluster") -> int:
    """Prints where everything is, then tells of daemons that end by themselves."""
    told: set[str] = set()
    try:
        _show_endpoints(cluster)
        while True:
            ended = cluster.supervise(3600)
            if ended is not None and ended not in told:
                told.add(ended)
                print(f"hookctl: {ended} has ended; the end of its log:", *cluster.log_tail(ended), sep="\n  ", file=sys.stderr)
    except KeyboardInterrupt:
        return ExitCode.OK
    except SystemExit:
        return ExitCode.OK
