"""Configuration files: what is taken, and what is said of what is not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from cranehooks.model.gres import NodeDevice
from cranehooks.model.ids import NodeName
from cranehooks.model.limits import LimitKind, Limits
from cranehooks.model.points import HookPoint, Runner, points_of
from cranehooks.model.run import HookSettings
from cranehooks.profiles import PrologFlag, ScriptOrder, StepAction, effective, overridden
from cranehooks.settings import ClusterSettings, Containment, NodeSettings, PartitionSettings, SchedulerKind, json_schema, load
from cranehooks.settings.document import OLDER_HOOK_KEYS
from cranekit.yaml_lines import SettingsError

MINIMAL = """\
ClusterName: test
Nodes:
  - {name: "cn[01-02]", address: "unix:/run/crane/{name}/craned.sock"}
"""


Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return write


def problems(path: Path) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(path)
    prefix = f"{path}:"
    return [str(problem).removeprefix(prefix) for problem in caught.value.problems]


@pytest.mark.parametrize(("nodes", "drains"), [("cn[1-59]", 2), ("cn[1-100]", 5), ("cn[1-400]", 20)])
def test_one_script_may_drain_two_nodes_or_five_percent(write: Write, nodes: str, drains: int) -> None:
    assert load(write(MINIMAL.replace("cn[01-02]", nodes))).drains_per_script == drains


def test_a_minimal_file(write: Write, tmp_path: Path) -> None:
    settings = load(write(MINIMAL))
    cn01, cn02 = NodeName("cn01"), NodeName("cn02")
    assert settings.cluster_name == "test"
    assert settings.nodes[cn02] == NodeSettings(cn02, "unix:/run/crane/cn02/craned.sock", 1.0, 1 << 30, "", "127.0.0.1:0")
    assert settings.partitions == {"default": PartitionSettings("default", (cn01, cn02), is_default=True, max_time_s=None)}
    assert settings.control_address == "127.0.0.1:10011"
    assert settings.cluster_secret_file == str(tmp_path / "cluster.secret")
    assert settings.scheduler.kind is SchedulerKind.EMBEDDED
    assert settings.containment is Containment.AUTO
    assert settings.drains_per_script == 2
    hooks = settings.hook_settings()
    assert hooks.profile == "crane-requeue"
    assert hooks.patterns == {}
    assert hooks.timeouts_s[HookPoint.PROLOG] == 60
    assert hooks.timeouts_s[HookPoint.CRUN_PROLOG] is None


FULL = """\
ClusterName: full
CranectldListen: unix:/run/crane/private/cranectld.sock
StateDir: state
Nodes:
  - {name: "cn[01-03]", address: "unix:/run/{name}.sock", cpu: 4, memory: 8G, gres: "gpu:a100:2"}
  - name: login
    address: 127.0.0.1:10010
    metrics: ""
Partitions:
  - {name: cpu, nodes: "cn[01-03]", max_time: 1:30:00}
  - {name: long, nodes: "cn01", max_time: "2-12"}
  - {name: free, nodes: "cn02", max_time: UNLIMITED}
DefaultPartition: cpu
Scheduler: {Kind: External}
MaxDrainsPerScript: 7
MetricsListen: {Craned: "127.0.0.1:9000"}
Administrators: ann, 1000
Containment: none
JobLogHook:
  PrologCranectld: ctld.sh
  Prolog: ["a.sh, b.sh", /abs/*.sh]
  Epilog: ""
  PrologTimeout: 30
  EpilogTimeout: 2.5
  CrunPrologTimeout: 9
  PrologFlags: forcerequeueonfail,SERIAL
  ContinueOnFailure: [Epilog]
  HoldOnPrologFail: true
  MaxOutputSize: 64K
  KillGrace: 0
"""


def test_a_full_file(write: Write, tmp_path: Path) -> None:
    settings = load(write(FULL))
    assert settings.state_dir == str(tmp_path / "state")
    assert settings.control_address == "unix:/run/crane/private/cranectld.sock"
    assert settings.nodes[NodeName("cn03")] == NodeSettings(
        NodeName("cn03"),
        "unix:/run/cn03.sock",
        4.0,
        8 << 30,
        "gpu:a100:2",
        "127.0.0.1:9000",
        (NodeDevice("gpu", 0, "a100"), NodeDevice("gpu", 1, "a100")),
    )
    assert settings.nodes[NodeName("login")].metrics_listen is None
    assert {name: partition.max_time_s for name, partition in settings.partitions.items()} == {
        "cpu": 5400.0,
        "long": 216000.0,
        "free": None,
    }
    assert settings.default_partition == "cpu"
    assert settings.partitions["cpu"].is_default
    assert settings.scheduler.kind is SchedulerKind.EXTERNAL
    assert settings.drains_per_script == 7
    assert settings.administrators == ("ann", "1000")
    assert settings.hook_settings() == HookSettings(
        profile="crane-requeue",
        patterns={
            HookPoint.CRANECTLD_PROLOG: (f"{tmp_path}/ctld.sh",),
            HookPoint.PROLOG: (f"{tmp_path}/a.sh", f"{tmp_path}/b.sh", "/abs/*.sh"),
        },
        timeouts_s={
            HookPoint.CRANECTLD_PROLOG: 30.0,
            HookPoint.PROLOG: 30.0,
            HookPoint.CRUN_PROLOG: 9.0,
            HookPoint.TASK_PROLOG: 30.0,
            HookPoint.STEP_TASK_PROLOG: 30.0,
            HookPoint.STEP_TASK_EPILOG: 2.5,
            HookPoint.TASK_EPILOG: 2.5,
            HookPoint.CRUN_EPILOG: None,
            HookPoint.EPILOG: 2.5,
            HookPoint.CRANECTLD_EPILOG: 2.5,
        },
        flags=frozenset({"Alloc", "ForceRequeueOnFail", "Serial"}),
        continue_on_failure=frozenset({HookPoint.EPILOG}),
        output_limit_bytes=64 << 10,
        slurm_compatible_env=False,
        config_dir=str(tmp_path),
        hold_on_prolog_fail=True,
        grace_s=0.0,
        overrides={"HoldOnPrologFail": "true"},
    )


NOT_LOOPBACK = (
    "is not a loopback address: without TLS, which this version does not have, the programs talk only over loopback (127.0.0.1:port) "
    "or Unix sockets (unix:/path)"
)


def test_all_problems_at_once_with_their_places(write: Write) -> None:
    path = write(
        """\
ClusterName: "a b"
CranectldListen: 127.0.0.1:10011
Nodez: 3
Nodes:
  - {name: "cn[01-02]", address: "127.0.0.1:10011", cpu: four, memory: 8X}
  - {name: "cn02", address: "10.0.0.1:44", gres: gpu}
  - nope
Partitions:
  - {name: cpu, nodes: "cn[02-04]", default: true, max_time: soon}
  - {name: cpu, nodes: "cn01", default: true}
DefaultPartition: gpu
Scheduler: {Kind: magic}
PrologTimeout: 3
AllowRootJobs: 1
JobLogHook:
  Prolog:
  EpilogTimeout: 0
  PrologTimout: 5
"""
    )
    assert problems(path) == [
        "1:14: ClusterName: 'a b' does not match ^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$",
        "3:1: unknown key Nodez: did you mean Nodes?",
        "5:34: node cn01 has the address of cranectld, 127.0.0.1:10011; use {name}, or one entry for each node",
        "5:58: cpu: expected a number, not 'four'",
        "5:72: memory: expected bytes, or a number with a unit K, M, G or T, not '8X'",
        "6:12: node cn02 is in entry 1 of Nodes already",
        f"6:29: address: 10.0.0.1 {NOT_LOOPBACK}",
        "6:50: gres: expected name:count or name:type:count, comma separated, not 'gpu'",
        "7:5: Nodes: expected a mapping of keys, not 'nope'",
        "9:24: cn[03-04] are not in Nodes",
        "9:62: max_time: expected seconds, [days-]hours:minutes:seconds, or UNLIMITED, not 'soon'",
        "10:12: partition cpu is entry 1 already",
        "10:41: partition cpu is the default already",
        "11:19: there is no partition gpu (Partitions: cpu)",
        "12:19: Kind: expected embedded, external, not 'magic'",
        "13:1: unknown key PrologTimeout: its place is in section JobLifecycleHook",
        "14:16: AllowRootJobs: expected true or false, not 1",
        "16:10: Prolog: expected a path, a comma separated list of paths, or a YAML list of them; to have no hook, remove the key",
        "17:18: EpilogTimeout: must be more than 0, not 0",
        "18:3: unknown key PrologTimout: did you mean PrologTimeout?",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- a\n", "1:1: expected a mapping of keys, as in `ClusterName: my-cluster`"),
        ("", "1:1: expected a mapping of keys, as in `ClusterName: my-cluster`"),
        ("Nodes: []\nClusterName: a\n", "1:8: a cluster has at least one node"),
        ("ClusterName: a\n", "1:1: Nodes is missing"),
        (MINIMAL + "Profile: pbs\n", "4:10: Profile: expected crane-requeue, crane-fail, slurm, sunk, not 'pbs'"),
        (MINIMAL + "ControlAddress: 127.0.0.1:0\n", "4:17: port 0 cannot be dialled: give the port that cranectld listens on"),
        (MINIMAL + "ControlAddress: 127.0.0.1\n", "4:17: ControlAddress: expected host:port, not '127.0.0.1'"),
        (MINIMAL + "CranectldListen: 0.0.0.0:1\n", "4:18: CranectldListen: 0.0.0.0 is not a loopback address"),
        (MINIMAL + "CranectldListen: unix:relative\n", "4:18: CranectldListen: the path of a Unix socket is absolute"),
        (MINIMAL + "NodeDownTimeout: 10\n", "4:18: NodeDownTimeout (10 s) must be at least three times HeartbeatInterval (5 s)"),
        (MINIMAL + "MaxRequeueDelay: 1\n", "4:18: MaxRequeueDelay (1 s) is less than RequeueDelay (5 s)"),
        (MINIMAL + "MaxQueuedJobs: 1.5\n", "4:16: MaxQueuedJobs: expected a whole number, not 1.5"),
        (MINIMAL + "MaxRequeueCount: -1\n", "4:18: MaxRequeueCount: must be at least 0, not -1"),
        (MINIMAL + "MaxDrainsPerScript: many\n", "4:21: MaxDrainsPerScript: expected a count of nodes or auto, not 'many'"),
        (MINIMAL + "JobLifecycleHook:\n", "4:18: JobLifecycleHook: expected a mapping of keys, not nothing"),
        (MINIMAL + "Partitions: [{name: p, nodes: 'cn[1-'}]\n", "4:31: "),
        (MINIMAL + "Partitions: [{name: p, nodes: cn07}]\n", "4:31: cn07 is not in Nodes"),
        (
            MINIMAL + "Partitions: [{name: p, nodes: cn01}, {name: q, nodes: cn02, default: true}]\nDefaultPartition: p\n",
            "5:19: partition q is marked `default: true`, this names p: keep one of them",
        ),
        (
            MINIMAL + "JobLogHook: {}\nJobLifecycleHook: {}\n",
            "5:1: JobLifecycleHook and JobLogHook (line 4, column 1) are two spellings of one key: keep one of them",
        ),
        (
            MINIMAL + "JobLifecycleHook: {PrologCranectld: a, CranectldProlog: b}\n",
            "4:40: CranectldProlog and PrologCranectld (line 4, column 20) are two spellings of one key: keep one of them",
        ),
        (
            MINIMAL + "JobLogHook:\n  EpilogCtld: a\n  Prolog: p\n  CraneCtldEpilog: b\n",
            "7:3: CraneCtldEpilog and EpilogCtld (line 5, column 3) are two spellings of one key: keep one of them",
        ),
        (
            MINIMAL + "JobLifecycleHook: {ScriptOrder: sideways}\n",
            "4:33: ScriptOrder: expected reverse, reverse-within-pattern, ascending, not 'sideways'",
        ),
        (
            MINIMAL + "JobLifecycleHook: {PrologFlags: Alloc, AllowedPrologFlags: Serial}\n",
            "4:33: Alloc is no flag of profile crane-requeue, whose flags are Serial",
        ),
        (MINIMAL + "JobLifecycleHook: {Profile: slurm}\n", "4:20: unknown key Profile: its place is at the top of the file"),
        (
            MINIMAL + "JobLifecycleHook: {ContinueOnFailure: [Prolog]}\n",
            "4:39: ContinueOnFailure: expected true, false, or some of TaskEpilog, CrunEpilog, Epilog, CranectldEpilog, not Prolog",
        ),
        (
            MINIMAL + "JobLifecycleHook: {KeepProcesses: TaskProlog}\n",
            "4:35: KeepProcesses: expected true, or some of CranectldProlog, Prolog, Epilog, CranectldEpilog, not 'TaskProlog': what",
        ),
        (
            MINIMAL + "JobLifecycleHook: {KeepProcesses: {Prolog: ''}}\n",
            "4:35: KeepProcesses: Prolog: expected paths or globs of its scripts, or true for all of them",
        ),
        (MINIMAL + "JobLifecycleHook: {KeepProcesses: {Prolog: 7}}\n", "4:35: KeepProcesses: "),
        (
            MINIMAL + "JobLifecycleHook: {HookLimits: {CrunProlog: {Pids: 1}}}\n",
            "4:33: unknown point CrunProlog: the limits are of Default, CranectldProlog, CranectldEpilog, Prolog, Epilog, TaskProlog,",
        ),
        (
            MINIMAL + "JobLifecycleHook: {HookLimits: {Prolog: {Memry: 1G}}}\n",
            "4:42: unknown limit Memry: the limits are Memory, Swap, Cpus, CpuWeight, Pids, IoWeight",
        ),
        (
            MINIMAL + "JobLifecycleHook: {HookLimits: {Prolog: {CpuWeight: 0}}}\n",
            "4:53: CpuWeight: must be at least 1, not 0",
        ),
        (MINIMAL + "JobLifecycleHook: {HookLimits: {Prolog: {Memory: much}}}\n", "4:50: Memory: expected bytes"),
        (MINIMAL + "JobLifecycleHook: {PrologTimeout: .inf}\n", "4:35: PrologTimeout: "),
        (MINIMAL + "JobLifecycleHook: {PrologTimeout: -1}\n", "4:35: PrologTimeout: must be more than 0, not -1"),
        (MINIMAL + "JobLifecycleHook: {PrologTimeout: '60'}\n", "4:35: PrologTimeout: expected a number, not '60'"),
    ],
)
def test_one_problem(write: Write, text: str, problem: str) -> None:
    (only,) = problems(write(text))
    assert only.startswith(problem)


@pytest.mark.parametrize(
    ("profile", "flags", "found"),
    [
        (
            "crane-requeue",
            "Frob",
            ["PrologFlags: unknown flag Frob: the flags are Alloc, Contain, DeferBatch, ForceRequeueOnFail, NoHold"],
        ),
        (
            "crane-requeue",
            "X11",
            ["X11 is no flag of profile crane-requeue, whose flags are Alloc, Contain, ForceRequeueOnFail, NoHold, RunInJob, "],
        ),
        ("crane-fail", "Alloc,Serial", ["Alloc is no flag of profile crane-fail, whose flags are Contain, RunInJob, Serial"]),
        ("slurm", "NoHold,Contain", ["NoHold and Contain exclude each other: "]),
        ("slurm", "NoHold,X11", ["NoHold and X11 exclude each other: "]),
        (
            "slurm",
            "NoHold,RunInJob",
            ["NoHold and Contain (implied by RunInJob) exclude each other: "],
        ),
        ("sunk", "RunInJob,Serial", ["RunInJob and Serial exclude each other: "]),
    ],
)
def test_flags_that_are_refused(write: Write, profile: str, flags: str, found: list[str]) -> None:
    path = write(f"{MINIMAL}Profile: {profile}\nJobLifecycleHook:\n  PrologFlags: {flags}\n")
    told = problems(path)
    assert len(told) == len(found)
    for problem, expected in zip(told, found, strict=True):
        assert problem.startswith(f"6:16: {expected}")


def test_x11_is_taken_for_what_it_implies_with_a_warning(write: Write) -> None:
    path = write(f"{MINIMAL}Profile: slurm\nJobLifecycleHook:\n  PrologFlags: x11, deferbatch\n")
    settings = load(path)
    assert settings.hook_settings().flags == {"X11", "Alloc", "Contain", "DeferBatch"}
    (caution,) = map(str, settings.cautions)
    assert caution.startswith(f"{path}:6:16: warning: X11 ")
    assert "nothing is forwarded" in caution
    assert load(write(f"{MINIMAL}Profile: slurm\nJobLifecycleHook: {{PrologFlags: deferbatch}}\n")).cautions == []


@pytest.mark.parametrize("profile", ["crane-requeue", "slurm", "sunk"])
def test_flags_that_are_taken(write: Write, profile: str) -> None:
    settings = load(write(f"{MINIMAL}Profile: {profile}\nJobLifecycleHook: {{PrologFlags: [nohold, SERIAL]}}\n"))
    assert settings.hook_settings().flags == {"NoHold", "Alloc", "Serial"}


@pytest.mark.parametrize(
    ("profile", "hold", "slurm"),
    [("crane-requeue", False, False), ("crane-fail", False, False), ("slurm", True, True), ("sunk", True, True)],
)
def test_what_the_profile_decides(write: Write, profile: str, hold: bool, slurm: bool) -> None:
    hooks = load(write(f"{MINIMAL}Profile: {profile.upper()}\n")).hook_settings()
    assert hooks.profile == profile
    assert hooks.hold_on_prolog_fail is hold
    assert hooks.slurm_compatible_env is slurm


def test_a_partition_marked_default(write: Write) -> None:
    settings = load(write(MINIMAL + "Partitions: [{name: p, nodes: cn01}, {name: q, nodes: cn02, default: true}]\n"))
    assert settings.default_partition == "q"
    assert [partition.is_default for partition in settings.partitions.values()] == [False, True]
    unmarked = load(write(MINIMAL + "Partitions: [{name: p, nodes: cn01}, {name: q, nodes: cn02}]\n"))
    assert unmarked.default_partition is None


@pytest.mark.parametrize("section", ["JobLifecycleHook", "JobLogHook"])
@pytest.mark.parametrize("before", ["CranectldProlog", "PrologCranectld", "PrologCtld", "CraneCtldProlog", "PrologCraneCtld"])
def test_every_spelling_of_the_controllers_hooks(write: Write, section: str, before: str) -> None:
    after = before.replace("Prolog", "Epilog")
    settings = load(write(f"{MINIMAL}{section}:\n  {before}: /p.sh\n  {after}: [/e.sh]\n"))
    assert settings.hook_settings().patterns == {
        HookPoint.CRANECTLD_PROLOG: ("/p.sh",),
        HookPoint.CRANECTLD_EPILOG: ("/e.sh",),
    }


def test_overrides_of_the_profile(write: Write) -> None:
    text = f"""{MINIMAL}Profile: crane-requeue
EnableSlurmCompatibleEnv: true
JobLifecycleHook:
  PrologTimeout: 7
  PrologEpilogTimeout: 9
  TimeoutPrecedence: OWN
  TimeoutsCoverTaskHooks: false
  DefaultTimeout: 11
  HoldOnPrologFail: true
  ScriptOrder: ascending
  AllowedPrologFlags: [serial, DeferBatch]
  OnCrunPrologFailure: fail
"""
    settings = load(write(text))
    hooks = settings.hook_settings()
    profile = effective(hooks)
    assert profile.order is ScriptOrder.ASCENDING
    assert profile.crun_prolog_failure is StepAction.FAIL
    assert profile.flags == frozenset({PrologFlag.SERIAL, PrologFlag.DEFER_BATCH})
    assert (hooks.slurm_compatible_env, hooks.hold_on_prolog_fail) == (True, True)
    assert {point: hooks.timeouts_s[point] for point in (HookPoint.PROLOG, HookPoint.EPILOG, HookPoint.TASK_PROLOG)} == {
        HookPoint.PROLOG: 7,
        HookPoint.EPILOG: 9,
        HookPoint.TASK_PROLOG: 11,
    }
    # The top of the file gives one cell to the settings as they are, not as an override of the hooks.
    assert settings.profile == overridden(profile, {"EnableSlurmCompatibleEnv": "true"})
    assert TypeAdapter(HookSettings).validate_json(TypeAdapter(HookSettings).dump_json(hooks)) == hooks


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("false", {}),
        ("'Prolog, PrologCtld'", {HookPoint.PROLOG: (), HookPoint.CRANECTLD_PROLOG: ()}),
        ("[Epilog]", {HookPoint.EPILOG: ()}),
        (
            "{Prolog: 'a.sh, /b/*', Epilog: true, CranectldEpilog: false}",
            {HookPoint.PROLOG: ("a.sh", "/b/*"), HookPoint.EPILOG: ()},
        ),
    ],
)
def test_which_hooks_keep_processes(write: Write, tmp_path: Path, text: str, kept: dict[HookPoint, tuple[str, ...]]) -> None:
    settings = load(write(MINIMAL + f"JobLifecycleHook: {{KeepProcesses: {text}}}\n"))
    beside = {point: tuple(str(tmp_path / pattern) for pattern in patterns) for point, patterns in kept.items()}
    assert settings.hook_settings().keep_processes == beside
    assert (settings.digest == load(write(MINIMAL + "JobLifecycleHook: {}\n")).digest) is not bool(kept)


def test_true_keeps_processes_of_every_hook_of_the_daemons(write: Write) -> None:
    settings = load(write(MINIMAL + "JobLifecycleHook: {KeepProcesses: true}\n"))
    assert list(settings.hook_settings().keep_processes) == [
        HookPoint.CRANECTLD_PROLOG, HookPoint.PROLOG, HookPoint.EPILOG, HookPoint.CRANECTLD_EPILOG
    ]  # fmt: skip


def test_limits_of_hooks_go_from_the_default_to_the_point(write: Write) -> None:
    limits = "{default: {Pids: 4096, CpuWeight: 50}, Prolog: {Memory: 1G, Pids: 100}, TaskEpilog: {IoWeight: 10, Cpus: 2}}"
    settings = load(write(MINIMAL + f"JobLifecycleHook: {{HookLimits: {limits}}}\n"))
    found = settings.hook_settings().limits
    assert found.keys() == {point for point in HookPoint if "--" not in point.value and "Crun" not in point.value}
    assert found[HookPoint.EPILOG] == Limits(pids=4096, cpu_weight=50)
    assert found[HookPoint.PROLOG] == Limits(memory_bytes=1 << 30, pids=100, cpu_weight=50)
    assert found[HookPoint.TASK_EPILOG] == Limits(pids=4096, cpu_weight=50, io_weight=10, cpu_cores=2)
    assert load(write(MINIMAL)).hook_settings().limits == {}


def test_limits_that_do_not_hold_are_told_of_hooks_that_are_there(write: Write) -> None:
    text = "{Prolog: /p, Epilog: /e, HookLimits: {Prolog: {Pids: 1, Memory: 1G}, Epilog: {Pids: 1}, CranectldProlog: {Pids: 1}}}"
    hooks = load(write(MINIMAL + f"JobLifecycleHook: {text}\n")).hook_settings()
    every = tuple(HookPoint)
    assert hooks.unenforced(every, frozenset(LimitKind)) == {}
    assert hooks.unenforced(every, frozenset({LimitKind.PIDS})) == {HookPoint.PROLOG: ("memory",)}
    assert hooks.unenforced([HookPoint.EPILOG], frozenset()) == {HookPoint.EPILOG: ("pids",)}


def test_slurm_names_can_be_turned_off(write: Write) -> None:
    assert not load(write(MINIMAL + "Profile: slurm\nEnableSlurmCompatibleEnv: false\n")).hook_settings().slurm_compatible_env


def test_equal_settings_have_equal_digests(write: Write) -> None:
    digest = load(write(MINIMAL)).digest
    assert load(write("# a comment\n" + MINIMAL.replace('"cn[01-02]"', "'cn[01-02]'"))).digest == digest
    assert load(write(MINIMAL + "KillGrace: 31\n")).digest != digest
    flags = MINIMAL + "JobLifecycleHook: {PrologFlags: '%s'}\n"
    assert load(write(flags % "Serial,NoHold")).digest == load(write(flags % "nohold, serial")).digest


def test_check_scripts_looks_at_literal_paths_of_own_points(write: Write, tmp_path: Path) -> None:
    path = write(FULL)
    seen: list[str] = []

    def check(script: str) -> str | None:
        seen.append(script)
        return f"{script} does not exist" if script.endswith("b.sh") else None

    settings = load(path)
    found = settings.check_scripts(points_of(Runner.CRANED), check)
    assert [str(problem) for problem in found] == [f"{path}:21:12: Prolog: {tmp_path}/b.sh does not exist"]
    assert seen == [f"{tmp_path}/a.sh", f"{tmp_path}/b.sh"]
    (problem,) = settings.check_scripts(points_of(Runner.CRANECTLD), lambda script: f"{script} is unsafe")
    assert str(problem) == f"{path}:20:20: CranectldProlog: {tmp_path}/ctld.sh is unsafe"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert problems(tmp_path / "missing.yaml") == ["1:1: cannot be read: No such file or directory"]


def test_the_schema_has_every_key() -> None:
    schema = json_schema()
    json.dumps(schema)
    assert {field.alias for field in ClusterSettings.model_fields.values()} | {"JobLogHook"} == schema["properties"].keys()
    hooks = schema["$defs"]["HookSection"]["properties"]
    assert hooks.keys() >= OLDER_HOOK_KEYS.keys()
    assert hooks["PrologCranectld"]["deprecated"] is True
    assert schema["required"] == ["ClusterName", "Nodes"]


def test_settings_never_change(write: Write) -> None:
    settings = load(write(MINIMAL))
    with pytest.raises(ValueError, match="frozen"):
        settings.cluster_name = "other"  # type: ignore[misc]


def test_the_example_of_the_deployment() -> None:
    settings = load(Path(__file__).parents[4] / "deploy/config/config.yaml")
    assert list(settings.nodes) == ["cn01", "cn02"]
    assert settings.default_partition == "cpu"
    assert settings.hook_settings().patterns.keys() == {
        HookPoint.PROLOG,
        HookPoint.EPILOG,
        HookPoint.TASK_PROLOG,
        HookPoint.TASK_EPILOG,
    }
