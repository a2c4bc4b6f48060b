"""Our own cgroups are found in every hierarchy, wherever it is mounted."""

from pathlib import Path

import pytest

from cranehooks.execution.containment.hierarchies import Hierarchies, parse

UNIFIED = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
V1 = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
PURE = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
PART = "29 23 0:26 /kubepods/pod1 /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "membership", "expected"),
    [
        (V1 + UNIFIED, "4:memory:/x\n0::/\n", "/sys/fs/cgroup/unified"),
        (PURE, "0::/system.slice/craned.service\n", "/sys/fs/cgroup/system.slice/craned.service"),
        (PART, "0::/kubepods/pod1/container\n", "/sys/fs/cgroup/container"),
        (PART, "0::/elsewhere\n", None),
        (V1, "4:memory:/x\n0::/\n", None),
        (PURE, "4:memory:/x\n", None),
        (PURE.replace("/sys/fs/cgroup ", r"/a\040b "), "0::/\n", "/a b"),
    ],
)
def test_our_directory_is_found_wherever_it_is_mounted(mountinfo: str, membership: str, expected: str | None) -> None:
    assert parse(mountinfo, membership).unified == (None if expected is None else Path(expected))


MACHINE = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 /docker/1 /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
MEMBERSHIP = """\
9:name=systemd:/
8:pids:/docker/1/inner
4:memory:/process_api/1b9f
1:cpu,cpuacct:/
0::/
"""


def test_each_controller_has_a_place_of_its_own() -> None:
    found = parse(MACHINE, MEMBERSHIP)
    assert found.controllers == {
        "memory": Path("/sys/fs/cgroup/memory/process_api/1b9f"),
        "cpu": Path("/sys/fs/cgroup/cpu,cpuacct"),
        "cpuacct": Path("/sys/fs/cgroup/cpu,cpuacct"),
        "pids": Path("/sys/fs/cgroup/pids/inner"),
    }
    assert [str(place) for place in found.places("c.n.i", "hooks")] == [
        "/sys/fs/cgroup/unified/crane/c.n.i/hooks",
        "/sys/fs/cgroup/memory/process_api/1b9f/crane/c.n.i/hooks",
        "/sys/fs/cgroup/cpu,cpuacct/crane/c.n.i/hooks",
        "/sys/fs/cgroup/pids/inner/crane/c.n.i/hooks",
    ]


def test_a_cgroup_outside_of_what_we_see_is_none() -> None:
    assert parse(PURE, "0::/../other\n") == Hierarchies()


def test_what_a_daemon_makes_is_beside_the_leaf_it_lives_in() -> None:
    assert parse(PURE, "0::/craned.service/crane-daemon\n").unified == Path("/sys/fs/cgroup/craned.service")
