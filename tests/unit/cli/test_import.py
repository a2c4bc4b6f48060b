"""`hookctl import slurm.conf`: what comes along, and what is said of the rest."""

from pathlib import Path

import pytest

from cranecli.hookctl.main import run
from cranecli.hookctl.slurm.conf import Pair, SlurmConfError, read
from cranecli.hookctl.slurm.importing import import_conf
from cranehooks.model.points import HookPoint
from cranehooks.profiles import INCOMPATIBLE_FLAGS, PrologFlag
from cranehooks.settings import load

SLURM_CONF = """\
# A cluster
clustername=bench
SlurmctldHost=ctl1(10.0.0.1)
SlurmctldHost=ctl2
SlurmUser=slurm
AuthType=auth/munge SlurmctldPort=6817
Include conf.d/hooks.conf
KillWait=20
MaxBatchRequeue=3
SchedulerParameters=bf_continue,nohold_on_prolog_fail
NodeName=DEFAULT CPUs=8 RealMemory=32000 \\
   Gres=gpu:a100:4(S:0-1),bad:2G State=UNKNOWN
NodeName=cn[01-04] NodeAddr=10.0.1.[1-4]
NodeName=login Sockets=2 CoresPerSocket=4 ThreadsPerCore=2 CPUs=16 Gres=
PartitionName=DEFAULT MaxTime=60
PartitionName=cpu Nodes=ALL Default=YES
PartitionName=long Nodes=cn[01-02],gone MaxTime=2-12 # comment
PartitionName=inf Nodes=cn03 MaxTime=INFINITE DefaultTime=10
"""
HOOKS_CONF = """\
PROLOG=/etc/slurm/prolog.d/*.sh
Prolog=first.sh
Epilog=/etc/slurm/epilog.d/*
PrologSlurmctld=/etc/slurm/ctld-a.sh
PrologSlurmctld=/etc/slurm/ctld-b.sh
TaskProlog=task\\#1.sh
SrunProlog=none
SrunEpilog="/etc/slurm/srun epilog.sh"
PrologFlags=alloc,serial,FORCErequeueonfail,Bogus
PrologTimeout=30
PrologEpilogTimeout=0
HealthCheckProgram=/usr/sbin/nhc
this is nothing
"""
CONFIG = """\
# From DIR/slurm.conf, by `hookctl import`. Read what it said on stderr, and then:
# hookctl check-config FILE; hookctl check-scripts --config FILE; hookctl plan --config FILE
ClusterName: bench  # DIR/slurm.conf:2
ControlMachine: ctl1  # DIR/slurm.conf:3
# CranectldUser: slurm  # DIR/slurm.conf:5: the program refuses to start as another user
KillGrace: 20  # DIR/slurm.conf:8
MaxRequeueCount: 3  # DIR/slurm.conf:9

Profile: slurm

# Without TLS the programs talk over Unix sockets and loopback only.
Nodes:
  - name: "cn[01-04]"  # DIR/slurm.conf:13
    address: "unix:/run/crane/{name}/craned.sock"
    cpu: 8
    memory: 32000M
    gres: "gpu:a100:4"
  - name: login  # DIR/slurm.conf:14
    address: "unix:/run/crane/{name}/craned.sock"
    cpu: 16
    memory: 32000M

Partitions:
  - name: cpu  # DIR/slurm.conf:16
    nodes: "cn[01-04],login"
    default: true
    max_time: 3600  # seconds
  - name: long  # DIR/slurm.conf:17
    nodes: "cn[01-02]"
    max_time: 216000  # seconds
  - name: inf  # DIR/slurm.conf:18
    nodes: cn03

JobLifecycleHook:
  CranectldProlog:
    - /etc/slurm/ctld-a.sh  # DIR/conf.d/hooks.conf:4
    - /etc/slurm/ctld-b.sh  # DIR/conf.d/hooks.conf:5
  Prolog:
    - "/etc/slurm/prolog.d/*.sh"  # DIR/conf.d/hooks.conf:1
    - DIR/first.sh  # DIR/conf.d/hooks.conf:2
  TaskProlog:
    - "DIR/task#1.sh"  # DIR/conf.d/hooks.conf:6
  CrunEpilog:
    - "/etc/slurm/srun epilog.sh"  # DIR/conf.d/hooks.conf:8
  Epilog:
    - "/etc/slurm/epilog.d/*"  # DIR/conf.d/hooks.conf:3
  PrologTimeout: 30  # DIR/conf.d/hooks.conf:10
  PrologFlags: Alloc,ForceRequeueOnFail,Serial  # DIR/conf.d/hooks.conf:9
  HoldOnPrologFail: false  # DIR/slurm.conf:10: nohold_on_prolog_fail
"""
TOLD = """\
hookctl: DIR/slurm.conf:3: SlurmctldHost=ctl1(10.0.0.1): its address: without TLS, loopback and Unix sockets
hookctl: DIR/slurm.conf:4: SlurmctldHost=ctl2: there is one controller
hookctl: DIR/slurm.conf:5: SlurmUser=slurm: left as a comment: with CranectldUser the program refuses to start as another user
hookctl: DIR/conf.d/hooks.conf:5: CranectldProlog: several run one after the other here, side by side in Slurm
hookctl: DIR/conf.d/hooks.conf:9: PrologFlags=Bogus: no such flag: Alloc, Contain, DeferBatch, ForceRequeueOnFail, NoHold, RunInJob, Serial, X11
hookctl: DIR/conf.d/hooks.conf:11: PrologEpilogTimeout=0: a hook without a time limit could hang for ever: 300 s apply
hookctl: DIR/conf.d/hooks.conf:12: HealthCheckProgram=/usr/sbin/nhc: there is no periodic check: call it from Prolog or Epilog
hookctl: DIR/conf.d/hooks.conf:13: this is nothing: not understood
hookctl: DIR/slurm.conf:10: SchedulerParameters=bf_continue: about scheduling, not about hooks
hookctl: DIR/slurm.conf:11: State=UNKNOWN: nodes start Up; hookctl drain takes one out of service
hookctl: DIR/slurm.conf:13: NodeAddr=10.0.1.[1-4]: without TLS the programs talk over Unix sockets and loopback only
hookctl: DIR/slurm.conf:13: Gres=bad:2G: devices are name:count or name:type:count here
hookctl: DIR/slurm.conf:17: gone: no NodeName line gives it (node sets are not known here)
hookctl: DIR/slurm.conf:18: DefaultTime=10: a job that asks for no time limit gets MaxTime
hookctl: not about hooks, left behind: AuthType, SlurmctldPort
"""


@pytest.fixture
def slurm_conf(tmp_path: Path) -> Path:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/hooks.conf").write_text(HOOKS_CONF)
    path = tmp_path / "slurm.conf"
    path.write_text(SLURM_CONF)
    return path


def test_everything_at_once(slurm_conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["import", str(slurm_conf)]) == 0
    said = capsys.readouterr()
    assert said.out.replace(str(slurm_conf.parent), "DIR") == CONFIG
    assert said.err.replace(str(slurm_conf.parent), "DIR") == TOLD


def test_the_result_loads(slurm_conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "config.yaml"
    assert run(["import", str(slurm_conf), "-o", str(output)]) == 0
    settings = load(output)
    hooks = settings.hook_settings()
    assert (settings.profile_name, hooks.hold_on_prolog_fail, settings.default_partition) == ("slurm", False, "cpu")
    assert hooks.patterns[HookPoint.PROLOG] == ("/etc/slurm/prolog.d/*.sh", f"{tmp_path}/first.sh")
    assert hooks.patterns[HookPoint.TASK_PROLOG] == (f"{tmp_path}/task#1.sh",)
    assert hooks.timeouts_s[HookPoint.PROLOG] == 30
    assert hooks.timeouts_s[HookPoint.EPILOG] == 300
    assert hooks.flags == {"Alloc", "ForceRequeueOnFail", "Serial"}
    assert len(settings.nodes) == 5
    capsys.readouterr()
    assert run(["import", str(slurm_conf), "-o", str(output)]) == 1
    assert f"hookctl: error: {output} exists: nothing was written" in capsys.readouterr().err


def test_an_empty_file_loads(tmp_path: Path) -> None:
    path = tmp_path / "slurm.conf"
    path.write_text("# nothing\n")
    imported = import_conf(path)
    output = tmp_path / "config.yaml"
    output.write_text(imported.text)
    assert [str(name) for name in load(output).nodes] == ["localhost"]
    assert [leftover.what for leftover in imported.leftovers] == ["ClusterName=", "NodeName"]


def test_every_flag_is_carried_over(tmp_path: Path) -> None:
    for flag in PrologFlag:
        told = [str(leftover) for leftover in flags_of(tmp_path, flag)]
        assert any("PrologFlags=X11: " in line and "nothing is forwarded" in line for line in told) is (flag is PrologFlag.X11)
        assert load(tmp_path / "config.yaml").hooks.prolog_flags == {flag}


@pytest.mark.parametrize(("one", "other"), [(one, other) for one, other, _ in INCOMPATIBLE_FLAGS])
def test_flags_that_exclude_each_other(tmp_path: Path, one: PrologFlag, other: PrologFlag) -> None:
    assert flags_of(tmp_path, one, other)


def flags_of(directory: Path, *flags: PrologFlag) -> tuple[object, ...]:
    """What is told of these flags; the result loads."""
    path = directory / "slurm.conf"
    path.write_text(f"ClusterName=a\nNodeName=n1\nPrologFlags={','.join(flags)}\n")
    imported = import_conf(path)
    (directory / "config.yaml").write_text(imported.text)
    load(directory / "config.yaml")
    return imported.leftovers


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("A=1 b = 2\n", ["A=1", "b=2"]),
        ("Prolog=/a \\\n  Epilog=/b\n", ["Prolog=/a", "Epilog=/b"]),
        ("A=1 # B=2 \\\nC=3\n", ["A=1", "C=3"]),
        ('A="x y" B=\\#z', ["A=x y", "B=#z"]),
        ("A+=1\r\n", ["A+=1"]),
    ],
)
def test_reading(tmp_path: Path, text: str, pairs: list[str]) -> None:
    path = tmp_path / "slurm.conf"
    path.write_text(text, newline="")
    assert [str(pair) for line in read(path) for pair in line.pairs] == pairs


def test_files_that_include_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "slurm.conf"
    path.write_text("include slurm.conf\n")
    with pytest.raises(SlurmConfError, match="include one another"):
        read(path)
    assert run(["import", str(tmp_path / "missing.conf")]) == 2
    assert "missing.conf: cannot be read: No such file" in capsys.readouterr().err


def test_a_file_named_after_a_cluster_that_has_no_name(tmp_path: Path) -> None:
    path = tmp_path / "slurm.conf"
    path.write_text("Include %c.conf\nClusterName=late\n")
    with pytest.raises(SlurmConfError, match=r"slurm.conf:1: %c in %c.conf is the cluster's name, and no ClusterName"):
        read(path)


def test_a_value_that_changes_an_earlier_one_is_told(tmp_path: Path) -> None:
    path = tmp_path / "slurm.conf"
    path.write_text("ClusterName=a\nNodeName=n1\nSchedulerParameters+=nohold_on_prolog_fail\n")
    (leftover,) = import_conf(path).leftovers
    assert leftover.why == "+= is not known here: write the whole value"
    assert Pair("A", "+=", "b").name == "a"
