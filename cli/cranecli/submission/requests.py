"""Turns options into the messages that ask for jobs and steps."""

from __future__ import annotations

import os
import sys

from cranecli.submission.option_values import exported_environment

_UNLIMITED_PLUS_1 = 1 << 64
"""The C library's -1 for no limit, as an unsigned number, is one less."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cranecli.front.client import Body
    from cranecli.submission.options import JobOptions


def inherited() -> Body:
    """Umask and soft resource limits of this process, which tasks take over."""
    import resource

    umask = os.umask(0o077)
    os.umask(umask)
    names = ("AS", "CORE", "CPU", "DATA", "FSIZE", "MEMLOCK", "NOFILE", "NPROC", "RSS", "STACK")
    soft = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0] for name in names}
    return {"umask": umask, "soft_limits": {name: str(value % _UNLIMITED_PLUS_1) for name, value in soft.items()}}


def request_id() -> str:
    """Unique per submission: a repeated request with it has no further effect."""
    return os.urandom(16).hex()


def job_request(kind: str, options: JobOptions, environment: dict[str, str], name: str) -> Body:
    """A SubmitJobRequest. `kind` is a JobKind's name; `name` is the job's when the options give none."""
    spec: Body = {
        "kind": kind,
        "name": options.job_name or name,
        "num_nodes": options.nodes,
        # As if one task for each node had been asked for: more share its CPUs.
        "ntasks": 0 if options.overcommit else options.ntasks,
        "ntasks_per_node": 0 if options.overcommit else options.ntasks_per_node,
        "cpus_per_task": options.cpus_per_task,
        "memory_per_node_bytes": str(options.memory_bytes),
        "cwd": working_directory(options),
        "environment": environment,
        "inherited": inherited(),
        "requeue": options.requeue,
        "submit_host": os.uname().nodename,
        "account": options.account,
        "partition": options.partition,
        "qos": options.qos,
        "gres": ",".join(filter(None, (options.gres, options.gpus_per_node and f"gpu:{options.gpus_per_node}"))),
        "gpus": options.gpus,
        "memory_per_cpu_bytes": str(options.memory_per_cpu_bytes),
        "exclusive": options.exclusive,
        "nodelist": options.nodelist,
        "exclude": options.exclude,
        "comment": options.comment,
        "stdout_path": options.output,
        "stderr_path": options.error,
    }
    if options.time_limit_s is not None:
        spec["time_limit"] = f"{options.time_limit_s}s"
    body: Body = {"spec": _without_defaults(spec), "request_id": request_id()}
    if options.array:
        body["array"] = options.array
    return body


def step_request(job_id: int, options: JobOptions, environment: dict[str, str], argv: Sequence[str]) -> Body:
    """A CreateStepRequest."""
    spec: Body = {
        "argv": list(argv),
        "name": options.job_name or os.path.basename(argv[0]),  # noqa: PTH119 - pathlib costs too much at start
        "ntasks": options.ntasks or options.ntasks_per_node * options.nodes,
        "cpus_per_task": options.cpus_per_task,
        "environment": environment,
        "cwd": working_directory(options),
        "inherited": inherited(),
        "stdio": "STDIO_MODE_ATTACHED",
        "task_prolog": options.task_prolog,
        "task_epilog": options.task_epilog,
        "nodelist": options.nodelist,
        "num_nodes": options.nodes,
    }
    body: Body = {"job_id": str(job_id), "spec": _without_defaults(spec), "request_id": request_id()}
    if options.overcommit:
        body["overcommit"] = True
    return body


def working_directory(options: JobOptions) -> str:
    """Absolute: the nodes do not know where this program was started."""
    try:
        return os.path.abspath(options.chdir) if options.chdir else os.getcwd()  # noqa: PTH100, PTH109
    except FileNotFoundError:
        # It was removed under us; the nodes say so, where it matters.
        return os.environ.get("PWD", "/")


def environment_for(program: str, options: JobOptions) -> dict[str, str]:
    """What the job gets of this program's environment; says what it cannot get."""
    environment, warnings = exported_environment(options.export, os.environb)
    for warning in warnings:
        sys.stderr.write(f"{program}: warning: {warning}\n")
    return environment


def _without_defaults(body: Body) -> Body:
    return {name: value for name, value in body.items() if value not in (0, "", None, False) or value is True}
