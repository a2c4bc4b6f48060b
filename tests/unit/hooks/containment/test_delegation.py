"""A daemon moves out of the way exactly where that is what keeps controllers from being passed on."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cranehooks.execution.containment.cgroup2 import CgroupContainment
from cranehooks.execution.containment.delegation import settle
from cranehooks.execution.containment.hierarchies import DAEMON_LEAF, Hierarchies
from cranehooks.model.limits import LimitKind
from tests.support.fake_cgroups import FakeUnified


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeUnified]:
    with FakeUnified(tmp_path).working() as hierarchy:
        yield hierarchy


def test_a_daemon_in_a_delegated_cgroup_moves_into_a_leaf(fake: FakeUnified) -> None:
    fake.populate(fake.base, os.getpid())
    leaf = settle(Hierarchies(fake.base))
    assert leaf == str(fake.base / DAEMON_LEAF)
    assert (fake.base / DAEMON_LEAF / "cgroup.procs").read_text() == str(os.getpid())
    # The kernel takes us off the other list.
    fake.populate(fake.base)
    assert LimitKind.MEMORY in CgroupContainment(fake.base, "c.n.i").offers.enforced


def test_a_successor_joins_what_its_predecessor_left(fake: FakeUnified) -> None:
    fake.populate(fake.base, os.getpid())
    (fake.base / DAEMON_LEAF).mkdir()
    assert settle(Hierarchies(fake.base)) == str(fake.base / DAEMON_LEAF)


def test_nobody_moves_who_is_not_in_the_way(fake: FakeUnified) -> None:
    fake.populate(fake.base, 1)
    assert settle(Hierarchies(fake.base)) is None
    assert settle(Hierarchies()) is None
    assert not (fake.base / DAEMON_LEAF).exists()


def test_nobody_moves_where_everything_is_passed_on_already(fake: FakeUnified) -> None:
    CgroupContainment(fake.base, "c.n.i").offers  # noqa: B018 - asking takes what there is
    fake.populate(fake.base, os.getpid())
    assert settle(Hierarchies(fake.base)) is None


def test_nobody_moves_where_there_are_no_controllers(tmp_path: Path) -> None:
    with FakeUnified(tmp_path, "").working() as fake:
        fake.populate(fake.base, os.getpid())
        assert settle(Hierarchies(fake.base)) is None


def test_the_root_may_hold_processes(tmp_path: Path) -> None:
    with FakeUnified(tmp_path, is_root=True).working() as fake:
        fake.populate(fake.base, os.getpid())
        assert settle(Hierarchies(fake.base)) is None
        assert LimitKind.MEMORY in CgroupContainment(fake.base, "c.n.i").offers.enforced
