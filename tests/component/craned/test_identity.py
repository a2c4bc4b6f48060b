"""Whose jobs a node runs: a craned that is not root, and users whom it cannot serve."""

import contextlib
import os
import pwd
import subprocess
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.component.craned.conftest import NODE, Site, controlled, node_of
from tests.support.eventually import eventually_async
from tests.support.fake_controller import own_job, own_step
from tests.support.programs import running

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: other users than ourselves")


PATHS = {"PYTHONPATH": ":".join(path for path in sys.path if path and not path.startswith(sys.base_prefix))}
"""Ours, for an interpreter that is not the virtual environment's, which may be below a home directory."""


def interpreter_for(uid: int) -> str | None:
    """One that the user reaches and that loads a craned."""
    for candidate in (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            result = subprocess.run(
                [candidate, "-c", "import craned.app, csupervisor.app"],
                env={**os.environ, **PATHS},
                user=uid,
                group=uid,
                extra_groups=(),
                cwd="/",
                capture_output=True,
                check=False,
            )
            if result.returncode == 0:
                return candidate
    return None


def homeless_user() -> pwd.struct_passwd | None:
    """One whose home directory should be there and is not."""
    users = (user for user in pwd.getpwall() if user.pw_dir.startswith("/var/") and not Path(user.pw_dir).exists())
    return next(users, None)


def give_away(directory: Path, uid: int) -> None:
    for path in (directory, *directory.rglob("*")):
        os.chown(path, uid, uid)


@needs_root
async def test_a_craned_that_is_not_root_runs_its_own_users_jobs_and_refuses_others(site: Site) -> None:
    interpreter = interpreter_for(NOBODY)
    if interpreter is None:
        pytest.skip(f"uid {NOBODY} can run no Python that loads craned")
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(controlled(site))
        give_away(site.directory, NOBODY)
        arguments = ["--config", str(site.config), "--node", NODE, "--state-dir", str(site.journal.parent)]
        await stack.enter_async_context(running("craned", arguments, site.directory, PATHS, user=NOBODY, interpreter=interpreter))
        await eventually_async(lambda: node.controller.registrations)
        assert node.controller.registrations[-1].only_uid == NOBODY
        told = site.directory / "told"
        own = own_job(46, NODE)
        own = replace(own, spec=replace(own.spec, uid=NOBODY, gid=NOBODY, user="nobody"))
        await node.commands.run_step(own, own_step("0", NODE, "/bin/sh", "-c", f"id -u > {told}"))
        ended = await node.controller.expect("step_ended", 46)
        assert (ended.tasks[0].exit.code, told.read_text()) == (0, f"{NOBODY}\n")
        job = own_job(47, NODE)
        other = replace(job, spec=replace(job.spec, uid=1, gid=1, user="daemon"))
        await node.commands.run_step(other, own_step("0", NODE, "/bin/true"))
        refused = await node.controller.expect("step_ended", 47)
        assert refused.tasks[0].cancelled
        assert refused.reason == (
            f"craned on cn01 runs as uid {NOBODY} and so runs jobs of that user only: it cannot run a job of daemon (uid 1)"
        )


@needs_root
@pytest.mark.parametrize("ignored", [False, True])
async def test_a_user_without_home_is_refused_unless_the_site_says_otherwise(site: Site, ignored: bool) -> None:
    user = homeless_user()
    if user is None:
        pytest.skip("needs an account whose home directory does not exist")
    site.options += "MissingHome: ignore\n" if ignored else ""
    async with node_of(site) as node:
        job = own_job(48, NODE)
        theirs = replace(job, spec=replace(job.spec, uid=user.pw_uid, gid=user.pw_gid, user=user.pw_name))
        await node.commands.run_step(theirs, own_step("0", NODE, "/bin/true"))
        ended = await node.controller.expect("step_ended", 48)
        if ignored:
            assert (ended.tasks[0].exit.code, ended.reason) == (0, "")
            return
        assert ended.tasks[0].cancelled
        assert ended.reason == f"cannot enter home directory {user.pw_dir} on cn01: No such file or directory"
        assert node.controller.of_kind("step_started", 48) == []
