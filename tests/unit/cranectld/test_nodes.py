import pytest

from cranectld.nodes import model as nodes
from cranectld.nodes.model import DrainCause, DrainOwner, Node, NodeConfig, NodeUse
from cranehooks.model.gres import HeldDevices
from cranehooks.model.ids import Attempt, AttemptKey, JobId, NodeName
from cranehooks.model.job import NodeShare

KEY = AttemptKey(JobId(1), Attempt(1))
HOOKS = DrainCause(DrainOwner.HOOKS, "prolog a.sh exit 1", 1.0)
ADMIN = DrainCause(DrainOwner.ADMIN, "new memory", 2.0, "root")


def node(gres: str = "") -> Node:
    return Node(NodeConfig(NodeName("cn01"), 4.0, 1 << 30, gres), up=True)


def share(gres: str = "") -> NodeShare:
    return NodeShare(NodeName("cn01"), 1, 2.0, 1 << 20, gres)


def test_first_cause_is_kept_and_later_ones_are_appended() -> None:
    drained = nodes.drained(nodes.drained(node(), HOOKS), ADMIN)

    assert drained.drains == (HOOKS, ADMIN)
    assert not drained.takes_work
    assert nodes.drained(drained, HOOKS) is drained


def test_causes_are_bounded() -> None:
    drained = nodes.drained(node(), HOOKS)
    for number in range(100):
        drained = nodes.drained(drained, DrainCause(DrainOwner.HOOKS, f"cause {number}", 3.0))

    assert len(drained.drains) == nodes.MAX_DRAIN_CAUSES
    assert drained.drains[0] == HOOKS
    assert drained.drains[-1].reason == "cause 99"


def test_resume_clears_all_or_those_of_one_owner() -> None:
    drained = nodes.drained(nodes.drained(node(), HOOKS), ADMIN)

    assert nodes.resumed(drained).drains == ()
    assert nodes.resumed(drained, DrainOwner.HOOKS).drains == (ADMIN,)


def test_life_of_a_share() -> None:
    allocated = nodes.allocated(node(), KEY, share())
    assert (allocated.use, allocated.cpus_free) == (NodeUse.ALLOCATED, 2.0)
    completing = nodes.completing(allocated, KEY)
    assert completing.use is NodeUse.COMPLETING
    freed = nodes.freed(completing, KEY)
    assert (freed.use, freed.cpus_free) == (NodeUse.IDLE, 4.0)


def test_node_that_owes_an_epilog_takes_no_work() -> None:
    owing = nodes.owing(nodes.allocated(node(), KEY, share()), KEY)

    assert not owing.takes_work
    assert "owes the Epilog of job 1" in owing.unavailable_because
    assert nodes.freed(owing, KEY).takes_work


@pytest.mark.parametrize(
    ("held", "wanted", "fits"),
    [
        ("", "gpu:2", True),
        ("gpu:1", "gpu:1", True),
        ("gpu:1", "gpu:2", False),
        ("", "gpu:a100:2", True),
        ("", "gpu:h100", False),
        ("", "", True),
    ],
)
def test_gres(held: str, wanted: str, fits: bool) -> None:
    used = nodes.allocated(node("gpu:a100:2"), KEY, share(held)) if held else node("gpu:a100:2")

    assert (used.free_devices(wanted) is not None) is fits


@pytest.mark.parametrize("bad", ["gpu:a:b:2", ":2", "gpu::1"])
def test_bad_gres_is_named(bad: str) -> None:
    with pytest.raises(ValueError, match="expected name"):
        node("gpu:2").free_devices(bad)


def test_devices_that_jobs_hold_are_no_longer_free() -> None:
    one, other = AttemptKey(JobId(1), Attempt(1)), AttemptKey(JobId(2), Attempt(1))
    used = nodes.allocated(node("gpu:3"), one, NodeShare(NodeName("cn01"), 1, 1.0, 0, "gpu:1", (HeldDevices("gpu", (1,)),)))
    # Allocated by a version that counted only: it may hold any, and is taken to hold the lowest.
    used = nodes.allocated(used, other, NodeShare(NodeName("cn01"), 1, 1.0, 0, "gpu:1"))

    assert used.devices_used == (HeldDevices("gpu", (0, 1)),)
    assert used.free_devices("gpu:1") == (HeldDevices("gpu", (2,)),)
    assert nodes.freed(used, one).free_devices("gpu:2") == (HeldDevices("gpu", (1, 2)),)
