"""Streams: input, floods, binary, whole lines, launchers that take nothing."""

import asyncio
import hashlib
from pathlib import Path

from crane.hooks.v1 import supervisor_pb2 as pb
from tests.support.eventually import eventually_async
from tests.support.supervisor_peer import SupervisorPeer

MIB = 1 << 20


def resident_bytes(pid: int) -> int:
    """Memory of a process's own."""
    status = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("Private_")) * 1024


async def test_stdin_goes_to_task_0_and_is_credited(craned: SupervisorPeer) -> None:
    await craned.start(craned.bootstrap("cat", task_ids=(0, 1)))
    data = bytes(range(256)) * 512
    craned.stdin(data)
    await eventually_async(lambda: craned.said.stdin_credit == len(data))
    craned.stdin(b"last line", eof=True)
    end = await craned.ended()
    assert [task.exit.code for task in end.tasks] == [0, 0]
    assert craned.said.stdout(0) == data + b"last line"
    assert craned.said.stdout(1) == b""


async def test_stdin_that_comes_before_the_task_is_kept(craned: SupervisorPeer) -> None:
    await craned.start(craned.bootstrap("cat"), attach=False)
    craned.stdin(b"early", eof=True)
    craned.attach()
    await craned.ended()
    assert craned.said.stdout() == b"early"


async def test_stdin_of_a_task_that_has_closed_it_is_credited_all_the_same(craned: SupervisorPeer) -> None:
    await craned.start(craned.bootstrap("sh", "-c", "exec <&-; echo closed; sleep 1000"))
    await eventually_async(lambda: craned.said.stdout() == b"closed\n")
    for _ in range(8):
        craned.stdin(b"x" * 32768)
    await eventually_async(lambda: craned.said.stdin_credit == 8 * 32768)
    craned.terminate("enough")
    await craned.ended()


async def test_a_flood_arrives_unchanged_in_bounded_memory(craned: SupervisorPeer) -> None:
    size = 100 * MIB
    pid = await craned.start(craned.bootstrap("sh", "-c", f"head -c {size} /dev/zero | tr '\\0' x"))
    grown = 0
    while len(craned.said.stdout()) < size // 2:
        await asyncio.sleep(0.05)
        grown = max(grown, resident_bytes(pid))
    end = await craned.ended()
    assert end.tasks[0].exit.code == 0
    assert craned.said.stdout() == b"x" * size
    assert grown < 24 * MIB


async def test_binary_output_is_unchanged(craned: SupervisorPeer) -> None:
    source = craned.home / "work" / "binary"
    source.write_bytes(hashlib.shake_256(b"seed").digest(3 * MIB + 17))
    await craned.run(craned.bootstrap("cat", str(source)))
    assert craned.said.stdout() == source.read_bytes()


async def test_chunks_end_with_lines(craned: SupervisorPeer) -> None:
    chunks: list[bytes] = []
    hear = craned._hear

    def heard(message: object) -> None:
        output = getattr(message, "output", None)
        if output is not None and output.data:
            chunks.append(output.data)
        hear(message)  # type: ignore[arg-type]  # what came is passed on

    craned._hear = heard  # type: ignore[method-assign]  # a tap
    line = "y" * 1000
    await craned.run(craned.bootstrap("sh", "-c", f"yes {line} | head -n 3000"))
    assert b"".join(chunks) == f"{line}\n".encode() * 3000
    assert all(chunk.endswith(b"\n") for chunk in chunks)


async def test_a_prompt_is_shown_without_its_newline(craned: SupervisorPeer) -> None:
    await craned.start(craned.bootstrap("sh", "-c", "printf 'Name? '; read name; echo hello $name"))
    await eventually_async(lambda: craned.said.stdout() == b"Name? ")
    craned.stdin(b"crane\n")
    await craned.ended()
    assert craned.said.stdout() == b"Name? hello crane\n"


async def test_no_more_than_the_window_is_sent_unasked(craned: SupervisorPeer) -> None:
    craned.takes_output = False
    await craned.start(craned.bootstrap("sh", "-c", "head -c 10000000 /dev/zero"))
    await eventually_async(lambda: len(craned.said.stdout()) == 256 * 1024)
    # An answer to what is asked later shows that nothing came in between.
    craned.stdin(b"anything")
    await eventually_async(lambda: craned.said.stdin_credit == len(b"anything"))
    assert len(craned.said.stdout()) == 256 * 1024
    craned.takes_output = True
    craned.send(pb.ToSupervisor(output_credit=256 * 1024))
    await craned.ended()
    assert len(craned.said.stdout()) == 10_000_000


async def test_output_nobody_takes_is_dropped_after_a_termination(craned: SupervisorPeer) -> None:
    craned.takes_output = False
    await craned.start(craned.bootstrap("sh", "-c", "yes", kill_grace_s=0.3))
    await eventually_async(lambda: len(craned.said.stdout()) > 190 * 1024)
    craned.terminate("cancelled by its owner")
    end = await craned.ended()
    assert end.reason == "cancelled by its owner"
    assert len(craned.said.stdout()) <= 256 * 1024
