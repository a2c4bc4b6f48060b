"""A craned for supervisors to talk with, in a directory that their users may enter."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.control_groups import removed_control_groups
from tests.support.supervisor_peer import SupervisorPeer


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that a step's user may enter, whose `work` it may write."""
    directory = Path(tempfile.mkdtemp(prefix="crane-sup-"))
    directory.chmod(0o755)
    (directory / "state").mkdir(mode=0o755)
    (directory / "work").mkdir()
    (directory / "work").chmod(0o777)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
async def craned(home: Path) -> AsyncIterator[SupervisorPeer]:
    instance = f"test.{home.name}"
    with removed_control_groups(instance) as tree:
        async with SupervisorPeer(home, instance) as craned:
            yield craned
        if tree is not None:
            # A step leaves the directory of its job to craned, and nothing else.
            assert not list(tree.glob("*/step_*"))
