"""`hookctl import` of slurm.conf files as sites write them: what comes along, what is told, and that the result loads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cranecli.hookctl.slurm.importing import Imported, import_conf
from cranehooks.model.points import HookPoint
from cranehooks.settings import ClusterSettings, load


@dataclass(frozen=True)
class Site:
    """A site's files, and what is expected of them. DIR is their directory."""

    files: Mapping[str, str]
    patterns: Mapping[str, list[str]]
    flags: frozenset[str] = frozenset()
    timeouts_s: Mapping[str, float] = field(default_factory=dict)
    hold: bool = True
    told: tuple[str, ...] = ()
    """How lines begin that are told, besides those about other matters."""
    nodes: int = 1


CLOUD = Site(
    {
        "slurm.conf": """\
# Written by the installer of a cloud cluster
ClusterName=parallel
SlurmctldHost=ip-10-0-0-5(10.0.0.5)
SlurmUser=slurm
SlurmctldPort=6820-6829
ReturnToService=1
# HOOKS
Prolog=/opt/slurm/etc/scripts/prolog.d/*
Epilog=/opt/slurm/etc/scripts/epilog.d/*
PrologFlags=Alloc
SchedulerParameters=nohold_on_prolog_fail
BatchStartTimeout=180
SuspendProgram=/opt/slurm/etc/suspend.sh
include slurm_nodes.conf
""",
        "slurm_nodes.conf": """\
NodeName=queue-st-[1-4] CPUs=8 RealMemory=15564 State=CLOUD Feature=static,c5
PartitionName=queue Nodes=queue-st-[1-4] MaxTime=INFINITE State=UP Default=YES
""",
    },
    {"Prolog": ["/opt/slurm/etc/scripts/prolog.d/*"], "Epilog": ["/opt/slurm/etc/scripts/epilog.d/*"]},
    flags=frozenset({"Alloc"}),
    hold=False,
    told=("DIR/slurm.conf:12: BatchStartTimeout=180: ",),
    nodes=4,
)
SEVERAL = Site(
    {
        "slurm.conf": """\
clustername=gpu
slurmctldhost=login
PROLOG=prolog-10-gpu
prolog=prolog-20-scratch
Prolog=prolog-30-*
Epilog=epilog-10
EPILOG=/shared/epilog\\#2
PrologSlurmctld=ctld.sh
PrologSlurmctld=/etc/slurm/licences
EpilogSlurmctld=ctld-end.sh
TaskProlog=task.sh   # comment
TaskEpilog=task-end.sh
SrunProlog=srun.sh
SrunEpilog=NONE
PrologEpilogTimeout=600
PrologTimeout=90
EpilogTimeout=65534
prologflags=CONTAIN,serial,X11
SchedulerParameters=bf_interval=30,NOHOLD_ON_PROLOG_FAIL,defer,batch_sched_delay=5
PrEpPlugins=prep/script,prep/site
UnkillableStepTimeout=180 KillWait=60
NodeName=DEFAULT CPUs=64 RealMemory=515000 Gres=gpu:h100:8
NodeName=dgx[01-02] # two
PartitionName=all Nodes=ALL Default=YES MaxTime=2-00:00:00
""",
    },
    {
        "CranectldProlog": ["DIR/ctld.sh", "/etc/slurm/licences"],
        "Prolog": ["DIR/prolog-10-gpu", "DIR/prolog-20-scratch", "DIR/prolog-30-*"],
        "CrunProlog": ["DIR/srun.sh"],
        "TaskProlog": ["DIR/task.sh"],
        "TaskEpilog": ["DIR/task-end.sh"],
        "Epilog": ["DIR/epilog-10", "/shared/epilog#2"],
        "CranectldEpilog": ["DIR/ctld-end.sh"],
    },
    flags=frozenset({"Alloc", "Serial"}),
    timeouts_s={"Prolog": 90, "CranectldProlog": 90, "Epilog": 600, "TaskProlog": 300},
    hold=False,
    told=(
        "DIR/slurm.conf:9: CranectldProlog: several run one after the other here, side by side in Slurm",
        "DIR/slurm.conf:17: EpilogTimeout=65534: ",
        "DIR/slurm.conf:19: SchedulerParameters=bf_interval=30,defer,batch_sched_delay=5: about scheduling",
        "DIR/slurm.conf:20: PrEpPlugins=prep/script,prep/site: there are no plugins",
        "DIR/slurm.conf:21: UnkillableStepTimeout=180: ",
    ),
    nodes=2,
)
CONTINUED = Site(
    {
        "slurm.conf": """\
ClusterName=long \\
  SlurmctldHost=a \\
  Prolog=/usr/sbin/prolog \\
  Epilog=/usr/sbin/epilog
# Prolog=/commented/out \\
PrologFlags=Alloc,NoHold,DeferBatch,ForceRequeueOnFail
Include %c.conf
Include parts/hooks.conf
Prolog = "/with blank/prolog 2"
NodeName=n1
""",
        "long.conf": "SlurmdUser=root\n",
        "parts/hooks.conf": "Include more.conf\nTaskProlog=first.sh\nTaskProlog=second.sh\n",
        "more.conf": "PrologTimeout=30\r\nSchedulerParameters=defer\r\n",
    },
    {"Prolog": ["/usr/sbin/prolog", "/with blank/prolog 2"], "Epilog": ["/usr/sbin/epilog"], "TaskProlog": ["DIR/second.sh"]},
    flags=frozenset({"Alloc", "NoHold", "DeferBatch", "ForceRequeueOnFail"}),
    timeouts_s={"Prolog": 30, "Epilog": 300},
    told=(
        "DIR/parts/hooks.conf:2: TaskProlog=DIR/first.sh: DIR/parts/hooks.conf:3 gives it again, and that counts",
        "DIR/more.conf:2: SchedulerParameters=defer: about scheduling",
    ),
)
NOTHING = Site(
    {
        "slurm.conf": """\
ClusterName=plain
ControlMachine=head
Prolog=
Epilog=(null)
PrologFlags=
SchedulerParameters=
AuthType=auth/munge
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/slurmdbd
NodeName=c[1-3,07] Sockets=2 CoresPerSocket=16 ThreadsPerCore=2 State=UNKNOWN
PartitionName=debug Nodes=c[1-3] Default=YES MaxTime=30 State=UP OverSubscribe=FORCE:4
DownNodes=c1 State=DOWN Reason=repair
""",
    },
    {},
    nodes=4,
)
ODD = Site(
    {
        "slurm.conf": """\
ClusterName=odd
SlurmctldHost=a
Prolog=/a,/b
Epilog=/epilog*.sh
SrunProlog=/srun[1].sh
PrologFlags=Contain,NoHold,Alloc
SchedulerParameters=nohold_on_prolog_fail
SchedulerParameters=bf_continue
PrologTimeout=forever
EpilogTimeout=-1
PrologEpilogTimeout=5.5
Prolog+=/c
NodeName=x
=what
""",
    },
    {"Epilog": ["/epilog*.sh"], "CrunProlog": ["/srun[1].sh"]},
    flags=frozenset(),
    told=(
        "DIR/slurm.conf:3: Prolog=/a,/b: a comma separates paths here: rename the file",
        "DIR/slurm.conf:5: SrunProlog=/srun[1].sh: taken, but * ? [ are wildcards here and not in Slurm",
        "DIR/slurm.conf:8: SchedulerParameters=bf_continue: about scheduling",
        "DIR/slurm.conf:9: PrologTimeout=forever: ",
        "DIR/slurm.conf:10: EpilogTimeout=-1: ",
        "DIR/slurm.conf:11: PrologEpilogTimeout=5.5: ",
        "DIR/slurm.conf:12: Prolog+=/c: += is not known here: write the whole value",
        "DIR/slurm.conf:14: =what: not understood",
    ),
)
SITES = {"cloud": CLOUD, "several": SEVERAL, "continued": CONTINUED, "nothing": NOTHING, "odd": ODD}


def imported(site: Site, directory: Path) -> tuple[Imported, ClusterSettings]:
    for name, text in site.files.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, newline="")
    found = import_conf(directory / "slurm.conf")
    output = directory / "config.yaml"
    output.write_text(found.text)
    return found, load(output)


@pytest.mark.parametrize("name", SITES)
def test_a_site_comes_along(name: str, tmp_path: Path) -> None:
    site = SITES[name]
    found, settings = imported(site, tmp_path)
    hooks = settings.hook_settings()
    expected = {
        HookPoint(key): tuple(path.replace("DIR", str(tmp_path)) for path in paths) for key, paths in site.patterns.items()
    }
    assert hooks.patterns == expected
    assert settings.profile_name == "slurm"
    if name != "odd":
        assert site.flags <= hooks.flags
    assert {key: hooks.timeouts_s[HookPoint(key)] for key in site.timeouts_s} == site.timeouts_s
    assert hooks.hold_on_prolog_fail is site.hold
    assert len(settings.nodes) == site.nodes
    told = [str(leftover).replace(str(tmp_path), "DIR") for leftover in found.leftovers]
    for line in site.told:
        assert any(one.startswith(line) for one in told), (line, told)
