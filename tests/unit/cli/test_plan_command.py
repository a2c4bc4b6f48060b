"""`hookctl plan`: what a job would meet under each profile, as tables."""

import io
import json
import pwd
import sys
from pathlib import Path

import pytest

from cranecli.hookctl.main import run
from cranehooks.profiles import PROFILES
from cranehooks.testing.faulty_scripts import HookScripts

CONFIG = """\
ClusterName: t
CranectldUser: slurm
CranedUser: root
Profile: PROFILE
Nodes:
  - {name: "cn[01-04]", address: "unix:/run/{name}.sock"}
JobLifecycleHook:
  CranectldProlog: ctld.sh
  Prolog: [first.sh, "p.d/*", none.d/*.sh]
  PrologTimeout: 30
  PrologEpilogTimeout: 20
  CrunProlog: missing.sh
  TaskProlog: /bin/true
  Epilog: p.d
  CranectldEpilog: ctld.sh
"""
WITHOUT_HOOKS = CONFIG.split("JobLifecycleHook", maxsplit=1)[0]

PLANS = {
    "crane-requeue": (
        '{"user": "ann", "nodes": "cn[01-02]"}',
        """\
Hooks of a batch job of ann that may be requeued, profile crane-requeue; as the files of this host
are now.

POINT            WHERE            AS     TIMEOUT                  A FAILURE
CranectldProlog  controller       slurm  20 s for the whole list  job requeued
Prolog           cn[01-02]        root   20 s for the whole list  node drained, job requeued
CrunProlog       where crun runs  ann    none                     step cancelled, not sent
TaskProlog       cn[01-02]        ann    20 s for the whole list  task cancelled
Epilog           cn[01-02]        root   20 s for the whole list  node drained
CranectldEpilog  controller       slurm  20 s for the whole list  logged

POINT            #  SCRIPT                  STATE
CranectldProlog  1  DIR/ctld.sh      ok
Prolog           1  DIR/p.d/README   PROBLEM: is not executable; chmod a+x DIR/p.d/README
Prolog           2  DIR/p.d/9-c      ok
Prolog           3  DIR/p.d/20-b.sh  ok
Prolog           4  DIR/p.d/10-a     ok
Prolog           5  DIR/first.sh     ok
CrunProlog       1  DIR/missing.sh   PROBLEM: does not exist
TaskProlog       1  /bin/true               ok
Epilog           1  DIR/p.d          PROBLEM: is a directory, expected a file (a pattern such as DIRECTORY/* means its files)
CranectldEpilog  1  DIR/ctld.sh      ok

- Prolog: nothing matches DIR/none.d/*.sh: no hook
""",
    ),
    "crane-fail": (
        '{"kind": "allocation", "user": "ann"}',
        """\
Hooks of an allocation of ann, profile crane-fail; as the files of this host are now.

POINT            WHERE            AS     TIMEOUT                  A FAILURE
CranectldProlog  controller       slurm  20 s for the whole list  job failed
Prolog           each node        root   20 s for the whole list  node drained, job failed
CrunProlog       where crun runs  ann    none                     crun fails, step not sent
TaskProlog       each node        ann    20 s for the whole list  task failed
Epilog           each node        root   20 s for the whole list  node drained
CranectldEpilog  controller       slurm  20 s for the whole list  logged

POINT            #  SCRIPT                  STATE
CranectldProlog  1  DIR/ctld.sh      ok
Prolog           1  DIR/p.d/README   PROBLEM: is not executable; chmod a+x DIR/p.d/README
Prolog           2  DIR/p.d/9-c      ok
Prolog           3  DIR/p.d/20-b.sh  ok
Prolog           4  DIR/p.d/10-a     ok
Prolog           5  DIR/first.sh     ok
CrunProlog       1  DIR/missing.sh   PROBLEM: does not exist
TaskProlog       1  /bin/true               ok
Epilog           1  DIR/p.d          PROBLEM: is a directory, expected a file (a pattern such as DIRECTORY/* means its files)
CranectldEpilog  1  DIR/ctld.sh      ok

- Prolog: nothing matches DIR/none.d/*.sh: no hook
""",
    ),
    "slurm": (
        '{"user": "ann", "requeue": false, "task_prolog": "/bin/false"}',
        """\
Hooks of a batch job of ann with --no-requeue, profile slurm; as the files of this host are now.

POINT            WHERE            AS     TIMEOUT                A FAILURE
CranectldProlog  controller       slurm  30 s for each script   job cancelled
Prolog           each node        root   30 s for each script   node drained, job cancelled
CrunProlog       where crun runs  ann    none                   step cancelled, not sent
TaskProlog       each node        ann    300 s for each script  task ends with the hook's exit code
--task-prolog    each node        ann    300 s for each script  task ends with the hook's exit code
Epilog           each node        root   20 s for each script   node drained
CranectldEpilog  controller       slurm  20 s for each script   logged

POINT            #  SCRIPT                 STATE
CranectldProlog  1  DIR/ctld.sh     ok
Prolog           -  -                      FAILS: no file matches DIR/none.d/*.sh (profile slurm: a pattern that matches nothing fails the hook)
CrunProlog       1  DIR/missing.sh  PROBLEM: does not exist
TaskProlog       1  /bin/true              ok
--task-prolog    1  /bin/false             ok
Epilog           1  DIR/p.d         PROBLEM: is a directory, expected a file (a pattern such as DIRECTORY/* means its files)
CranectldEpilog  1  DIR/ctld.sh     ok
""",
    ),
    "sunk": (
        '{"kind": "batch", "prolog": "none"}',
        """\
Hooks of a batch job that may be requeued, profile sunk; as the files of this host are now.

POINT            WHERE       AS        TIMEOUT                A FAILURE
CranectldProlog  controller  slurm     30 s for each script   job requeued
Prolog           each node   root      30 s for each script   node drained, job requeued, held
TaskProlog       each node   the user  300 s for each script  task ends with the hook's exit code
Epilog           each node   root      20 s for each script   node drained
CranectldEpilog  controller  slurm     20 s for each script   logged

POINT            #  SCRIPT                  STATE
CranectldProlog  1  DIR/ctld.sh      ok
Prolog           1  DIR/first.sh     ok
Prolog           2  DIR/p.d/10-a     ok
Prolog           3  DIR/p.d/20-b.sh  ok
Prolog           4  DIR/p.d/9-c      ok
Prolog           5  DIR/p.d/README   PROBLEM: is not executable; chmod a+x DIR/p.d/README
TaskProlog       1  /bin/true               ok
Epilog           1  DIR/p.d/10-a     ok
Epilog           2  DIR/p.d/20-b.sh  ok
Epilog           3  DIR/p.d/9-c      ok
CranectldEpilog  1  DIR/ctld.sh      ok

- Prolog: nothing matches DIR/none.d/*.sh: no hook
- Epilog: passed over in DIR/p.d: README (not executable)
""",
    ),
}
"""By profile: the job, and what is told of it."""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("COLUMNS", raising=False)
    root = pwd.getpwuid(0)
    monkeypatch.setattr(pwd, "getpwnam", {"ann": root, "root": root}.__getitem__)
    (tmp_path / "p.d").mkdir()
    for name in ("ctld.sh", "first.sh", "p.d/10-a", "p.d/20-b.sh", "p.d/9-c", "p.d/README"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "p.d/README").chmod(0o644)
    return write(tmp_path, CONFIG.replace("PROFILE", "crane-requeue"))


def write(directory: Path, text: str) -> Path:
    path = directory / "config.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("profile", PROFILES)
def test_the_plan(config: Path, profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    job, expected = PLANS[profile]
    write(config.parent, CONFIG.replace("PROFILE", profile))
    assert run(["plan", "-c", str(config), "--job", job]) == 0
    assert squeezed(capsys.readouterr().out.replace(str(config.parent), "DIR")) == squeezed(expected)


def squeezed(text: str) -> list[str]:
    """The words: how wide the columns are depends on the length of the temporary directory's name."""
    return text.split()


def test_for_programs(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = config.parent / "job.json"
    job.write_text(json.dumps({"job": {"kind": "run", "nodes": ["cn01", "cn02"], "account": "x"}}))
    assert run(["plan", "-c", str(config), "--job", f"@{job}", "-o", "json"]) == 0
    said = capsys.readouterr()
    assert said.err == "hookctl: of the job, these mean nothing here: account\n"
    plan = json.loads(said.out)
    assert plan["job"] == {"kind": "run", "requeue": True, "user": None, "nodes": ["cn01", "cn02"]}
    prolog = next(point for point in plan["points"] if point["point"] == "Prolog")
    assert [Path(script["path"]).name for script in prolog["scripts"]] == ["README", "9-c", "20-b.sh", "10-a", "first.sh"]
    assert prolog["on_failure"] == {"drain": True, "job": "cancel", "step": "continue", "task": "continue"}
    assert (prolog["timeout_s"], prolog["timeout_covers"], prolog["where"]) == (20, "list", "cn[01-02]")


def test_which_scripts_may_leave_processes_behind(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = CONFIG.replace("PROFILE", "crane-requeue") + "  KeepProcesses: {Prolog: 'p.d/1*', CranectldEpilog: true}\n"
    write(config.parent, text)
    assert run(["plan", "-c", str(config), "-o", "json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    keeping = {
        (point["point"], Path(script["path"]).name)
        for point in plan["points"]
        for script in point["scripts"]
        if script["keeps_processes"]
    }
    assert keeping == {("Prolog", "10-a"), ("CranectldEpilog", "ctld.sh")}
    assert run(["plan", "-c", str(config)]) == 0
    said = capsys.readouterr().out
    assert "10-a may leave processes behind (KeepProcesses)" in said
    assert "- CranectldEpilog: all scripts may leave processes behind (KeepProcesses)" in said


def test_flags_and_what_they_imply(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = HookScripts(tmp_path).appends("ran", tmp_path / "trace", "prolog.sh")
    hooks = f"JobLifecycleHook: {{Prolog: {script}, PrologFlags: 'X11, deferBATCH'}}\n"
    path = write(tmp_path, WITHOUT_HOOKS.replace("PROFILE", "slurm") + hooks)
    assert run(["plan", "-c", str(path)]) == 0
    said = capsys.readouterr().out
    assert "- Alloc (implied by DeferBatch, X11): " in said
    assert "- Contain (implied by X11): " in said
    assert "- X11: stands for what it implies alone: nothing is forwarded" in said
    assert run(["check-config", str(path)]) == 0
    assert "warning: X11 " in capsys.readouterr().err


def test_the_limits_of_hooks(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = CONFIG.replace("PROFILE", "crane-requeue") + "  HookLimits: {Default: {Pids: 99}, Epilog: {Memory: 1G}}\n"
    write(config.parent, text)
    assert run(["plan", "-c", str(config), "-o", "json"]) == 0
    limits = {point["point"]: point["limits"] for point in json.loads(capsys.readouterr().out)["points"]}
    assert limits["Prolog"] == {**dict.fromkeys(limits["Epilog"]), "pids": 99}
    assert (limits["Epilog"]["memory_bytes"], limits["Epilog"]["pids"], limits["CrunProlog"]) == (1 << 30, 99, None)
    assert run(["plan", "-c", str(config)]) == 0
    said = capsys.readouterr().out
    assert "- Prolog: at most 99 processes (HookLimits)" in said
    assert "- Epilog: at most 1024 MiB of memory, 99 processes (HookLimits)" in said


def test_nothing_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace"
    script = HookScripts(tmp_path).appends("ran", trace, "loud.sh")
    path = write(tmp_path, WITHOUT_HOOKS.replace("PROFILE", "slurm") + f"JobLifecycleHook: {{Prolog: {script}}}\n")
    assert run(["plan", "-c", str(path)]) == 0
    assert script in capsys.readouterr().out
    assert not trace.exists()


@pytest.mark.parametrize("given", ["@FILE", "FILE", "-"])
def test_a_job_from_a_file_or_from_stdin(
    config: Path, given: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = config.parent / "job.json"
    job.write_text('{"kind": "allocation", "user": "ann", "bogus": 1}')
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(job.read_bytes())))
    assert run(["plan", "-c", str(config), "-j", given.replace("FILE", str(job))]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("Hooks of an allocation of ann,")
    assert said.err == "hookctl: of the job, these mean nothing here: bogus\n"


@pytest.mark.parametrize("user", ["nobody-here", "4294967295", "a\0b"])
def test_a_user_who_is_not_known_is_noted(config: Path, user: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "-c", str(config), "-j", json.dumps({"user": user})]) == 0
    assert f"- user {user!r} is not known on this host\n" in capsys.readouterr().out


def test_no_hooks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, WITHOUT_HOOKS.replace("PROFILE", "sunk"))
    assert run(["plan", "-c", str(path)]) == 0
    assert capsys.readouterr().out.endswith("\nno hooks are configured\n")


@pytest.mark.parametrize(
    ("job", "complaint"),
    [
        ("{", "the job: no JSON: "),
        ("[]", 'the job: expected an object, as in {"kind": "batch"}'),
        ('{"kind": "bat"}', "the job: kind is batch, allocation, run, not 'bat'"),
        ('{"requeue": 1}', "the job: requeue is true or false, not 1"),
        ('{"user": 1}', "the job: user is a text, not 1"),
        ('{"nodes": "cn[1-"}', "the job: nodes: "),
        ('{"nodes": 7}', "the job: nodes is a hostlist or a list of names, not 7"),
        ('{"nodes": "cn[04-06]"}', "the job: there is no node cn[05-06] in the configuration"),
        ('{"task_prolog": "p.sh"}', "the job: the path of --task-prolog is absolute, or none, not 'p.sh'"),
        ("/nowhere.json", "the job: /nowhere.json cannot be read: No such file or directory"),
        ("@/nowhere.json", "the job: /nowhere.json cannot be read: No such file or directory"),
    ],
)
def test_what_is_no_job(config: Path, job: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "-c", str(config), "-j", job]) == 2
    assert capsys.readouterr().err.startswith(f"hookctl: error: {complaint}")
