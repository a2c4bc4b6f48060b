"""The script of a batch step on disk."""

import os
import stat
from pathlib import Path

import pytest

from crane.hooks.v1 import supervisor_pb2 as pb
from csupervisor.batch import remove_script, write_script
from csupervisor.bootstrap import Bootstrap, bootstrap_from_wire


@pytest.fixture
def bootstrap(message: pb.SupervisorBootstrap, tmp_path: Path) -> Bootstrap:
    message.step_id = "batch"
    message.state_dir = str(tmp_path)
    message.batch_script = "#!/bin/sh\necho é\n"
    message.job.script_name = "train.sh"
    message.job.script_arguments.append("--fast")
    if os.geteuid() == 0:
        message.job.uid = message.job.gid = 65534
    return bootstrap_from_wire(message)


def test_only_its_user_may_read_and_run_it(bootstrap: Bootstrap, tmp_path: Path) -> None:
    batch = write_script(bootstrap)
    path = tmp_path / "job_42.1" / "script"
    assert (batch.path, batch.name, batch.arguments) == (str(path), "train.sh", ("--fast",))
    status = path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o500, bootstrap.job.uid)
    assert path.read_bytes() == "#!/bin/sh\necho é\n".encode()
    assert path.parent.stat().st_uid == os.geteuid()


def test_what_a_dead_supervisor_left_is_replaced(bootstrap: Bootstrap, tmp_path: Path) -> None:
    write_script(bootstrap)
    assert write_script(bootstrap).path == str(tmp_path / "job_42.1" / "script")


def test_it_is_removed_however_often(bootstrap: Bootstrap, tmp_path: Path) -> None:
    write_script(bootstrap)
    remove_script(bootstrap)
    remove_script(bootstrap)
    assert list(tmp_path.iterdir()) == []
