"""The options of crun, cbatch and calloc: one table, read the same way from a command line and from the #CBATCH lines of a script."""

from __future__ import annotations

from cranecli.submission.option_values import (
    DEFAULT_EXPORT,
    OptionValueError,
    array_indexes,
    existing_script,
    export_list,
    gpu_count,
    gres_list,
    memory_bytes,
    plain_text,
    positive_number,
    positive_share,
    script_path,
    shell_command,
    task_input,
    time_limit_s,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence
    from typing import NoReturn

ALL = frozenset({"crun", "cbatch", "calloc"})
CRUN = frozenset({"crun"})
CBATCH = frozenset({"cbatch"})


class UsageError(Exception):
    """The command line, or a script's option line, is wrong. The message says where and what was expected."""


class JobOptions:
    """What was asked for; the values here are those of an empty command line."""

    nodes = 0
    ntasks = 0
    ntasks_per_node = 0
    cpus_per_task = 0.0
    memory_bytes = 0
    memory_per_cpu_bytes = 0
    gres = ""
    gpus = ""
    gpus_per_node = ""
    exclusive = False
    nodelist = ""
    exclude = ""
    array = ""
    job_name = ""
    account = ""
    partition = ""
    qos = ""
    time_limit_s: int | None = None
    output = ""
    error = ""
    chdir = ""
    export: tuple[str, ...] = DEFAULT_EXPORT
    comment = ""
    requeue = True
    wait = False
    parsable = False
    wrap: str | None = None
    label = False
    overcommit = False
    input = "0"
    prolog: str | None = None
    """None: the configured hook; empty: no hook."""
    epilog: str | None = None
    task_prolog = ""
    task_epilog = ""
    is_help_wanted = False
    is_version_wanted = False


class Option:
    """One option: its names, what it sets, and how its value is read (a flag has no reader, it sets `constant`)."""

    __slots__ = ("attribute", "constant", "help", "long", "metavar", "programs", "read", "short")

    def __init__(
        self,
        short: str,
        long: str,
        attribute: str,
        read: Callable[[str], object] | None,
        metavar: str,
        text: str,
        programs: frozenset[str] = ALL,
        *,
        constant: object = True,
    ) -> None:
        self.short = short
        self.long = long
        self.attribute = attribute
        self.read = read
        self.metavar = metavar
        self.help = text
        self.programs = programs
        self.constant = constant


OPTIONS = (
    Option("N", "nodes", "nodes", positive_number, "N", "number of nodes"),
    Option("n", "ntasks", "ntasks", positive_number, "N", "number of tasks"),
    Option("", "ntasks-per-node", "ntasks_per_node", positive_number, "N", "tasks on each node"),
    Option("c", "cpus-per-task", "cpus_per_task", positive_share, "N", "CPUs for each task; parts of one are possible (0.5)"),
    Option("", "mem", "memory_bytes", memory_bytes, "SIZE", "memory on each node, with K, M, G or T (alone: megabytes)"),
    Option("", "mem-per-cpu", "memory_per_cpu_bytes", memory_bytes, "SIZE", "memory for each CPU, in place of --mem"),
    Option("", "gres", "gres", gres_list, "LIST", "generic resources on each node: name[:type][:count],…, or none"),
    Option("G", "gpus", "gpus", gpu_count, "[TYPE:]N", "GPUs on all nodes together"),
    Option("", "gpus-per-node", "gpus_per_node", gpu_count, "[TYPE:]N", "GPUs on each node, as --gres=gpu:[TYPE:]N"),
    Option("", "exclusive", "exclusive", None, "", "whole nodes: all their CPUs and gres, and no other job there"),
    Option("w", "nodelist", "nodelist", plain_text, "HOSTS", "these nodes, as a hostlist: cn[01-04]"),
    Option("x", "exclude", "exclude", plain_text, "HOSTS", "none of these nodes"),
    Option("", "array", "array", array_indexes, "INDEXES", "one job for each index: 0-9:2,20", CBATCH),
    Option("J", "job-name", "job_name", plain_text, "NAME", "name of the job"),
    Option("A", "account", "account", plain_text, "NAME", "account to charge"),
    Option("p", "partition", "partition", plain_text, "NAME", "partition to run in"),
    Option("q", "qos", "qos", plain_text, "NAME", "quality of service"),
    Option("t", "time", "time_limit_s", time_limit_s, "TIME", "time limit: MINUTES, H:M:S, D-H, D-H:M:S, …"),
    Option(
        "o", "output", "output", plain_text, "FILE", "file for stdout; %j job, %x name, %u user, %N node, %A %a array", CBATCH
    ),
    Option("e", "error", "error", plain_text, "FILE", "file for stderr (default: with stdout)", CBATCH),
    Option("D", "chdir", "chdir", plain_text, "DIR", "working directory"),
    Option(
        "",
        "export",
        "export",
        export_list,
        "LIST",
        "ALL (default), NONE, or NAME,NAME=value,…: what the job gets of the environment",
    ),
    Option("", "comment", "comment", plain_text, "TEXT", "a remark, kept with the job"),
    Option("", "requeue", "requeue", None, "", "run the job again when a Prolog or a node fails (default)", CBATCH),
    Option("", "no-requeue", "requeue", None, "", "never run the job again", CBATCH, constant=False),
    Option("W", "wait", "wait", None, "", "wait until the job has ended; exit with its exit code", CBATCH),
    Option("", "parsable", "parsable", None, "", "print the job id alone", CBATCH),
    Option("", "wrap", "wrap", shell_command, "COMMAND", "run this shell command in place of a script", CBATCH),
    Option("O", "overcommit", "overcommit", None, "", "more tasks than there are CPUs for: they share them", CRUN),
    Option("l", "label", "label", None, "", "put the number of the task before each line of output", CRUN),
    Option("i", "input", "input", task_input, "none|0", "where stdin goes: to task 0 (default), or nowhere", CRUN),
    Option("", "prolog", "prolog", existing_script, "PATH|none", "run this in place of CrunProlog", CRUN),
    Option("", "epilog", "epilog", existing_script, "PATH|none", "run this in place of CrunEpilog", CRUN),
    Option("", "task-prolog", "task_prolog", script_path, "PATH", "run this before each task, after TaskProlog", CRUN),
    Option("", "task-epilog", "task_epilog", script_path, "PATH", "run this after each task, before TaskEpilog", CRUN),
    Option("h", "help", "is_help_wanted", None, "", "show this and exit"),
    Option("V", "version", "is_version_wanted", None, "", "show the version and exit"),
)

COMMAND_LINE_ONLY = frozenset({"wrap", "help", "version"})
"""What means nothing in a script."""


FROM_ENVIRONMENT = frozenset({"prolog", "epilog", "task-prolog", "task-epilog"})
"""Options whose defaults come from variables."""

RIVALS = (("mem", "mem-per-cpu"), ("gpus", "gpus-per-node"))
"""Options of which one takes the other's place."""

RESOURCES = ("mem", "mem-per-cpu", "gres", "gpus", "gpus-per-node", "exclusive")
"""Options that count for a job: a step has what its job has."""


class Assignment:
    """One option with its value, before it is applied."""

    __slots__ = ("attribute", "value")

    def __init__(self, attribute: str, value: object) -> None:
        self.attribute = attribute
        self.value = value


def options_of(program: str) -> list[Option]:
    """The options that a program takes, in the order of its help."""
    return [option for option in OPTIONS if program in option.programs]


def parse(program: str, words: Sequence[str], *, in_script: bool = False) -> tuple[list[Assignment], list[str]]:
    """Reads options up to the first word that is none, or to `--`.

    Returns:
        What they set, in order, and the remaining words.

    Raises:
        UsageError: an unknown option, one without its value or with a wrong one, two that exclude each other.
    """
    found, rest = _read(program, words, in_script=in_script)
    given = {assignment.attribute for assignment in found}
    for one, other in RIVALS:
        if {_attribute(one), _attribute(other)} <= given:
            raise UsageError(f"options --{one} and --{other} exclude each other: expected one of them")
    return found, rest


def _read(program: str, words: Sequence[str], *, in_script: bool) -> tuple[list[Assignment], list[str]]:
    known = options_of(program)
    if in_script:
        known = [option for option in known if option.long not in COMMAND_LINE_ONLY]
    found: list[Assignment] = []
    rest = list(words)
    while rest:
        word = rest[0]
        if word == "--":
            return found, rest[1:]
        if len(word) < 2 or not word.startswith("-"):
            break
        del rest[0]
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            option = _long_option(known, name)
            if equals and option.read is None:
                raise UsageError(f"option --{option.long} takes no value, got {value!r}")
            found.append(_assignment(option, f"--{option.long}", value if equals else None, rest))
        else:
            _read_short(known, word, rest, found)
    return found, rest


def apply(assignments: Sequence[Assignment], options: JobOptions) -> None:
    """Sets what was read; the last of several wins.

    Raises:
        UsageError: GPUs are asked for twice.
    """
    for assignment in assignments:
        setattr(options, assignment.attribute, assignment.value)
        for pair in RIVALS:
            names = [_attribute(long) for long in pair]
            if assignment.attribute in names:
                [rival] = (name for name in names if name != assignment.attribute)
                setattr(options, rival, getattr(JobOptions, rival))
    if (options.gpus or options.gpus_per_node) and any(entry.split(":")[0] == "gpu" for entry in options.gres.split(",")):
        option = "--gpus" if options.gpus else "--gpus-per-node"
        raise UsageError(f"options --gres={options.gres} and {option} both ask for GPUs: expected one of them")


def apply_environment(program: str, variables: Mapping[str, str], options: JobOptions, given: Container[str]) -> None:
    """Sets what variables say in place of options, as srun reads them: `CRANE_PROLOG` or `SLURM_PROLOG` for `--prolog`. Not those that are `given`.

    Raises:
        UsageError: a value that the option would not take.
    """
    for option in options_of(program):
        if option.long not in FROM_ENVIRONMENT or option.read is None or option.attribute in given:
            continue
        word = option.long.upper().replace("-", "_")
        name = next((name for name in (f"CRANE_{word}", f"SLURM_{word}") if variables.get(name)), None)
        if name is None:
            continue
        try:
            setattr(options, option.attribute, option.read(variables[name]))
        except OptionValueError as error:
            raise UsageError(f"environment variable {name}: {error}") from error


def limit_nodes(program: str, options: JobOptions) -> None:
    """No more nodes than tasks; says so where fewer are taken than were asked for."""
    if 0 < options.ntasks < options.nodes:
        import sys

        text = f"can't run {options.ntasks} processes on {options.nodes} nodes, setting nnodes to {options.ntasks}"
        sys.stderr.write(f"{program}: warning: {text}\n")
        options.nodes = options.ntasks


def given_resources(options: JobOptions) -> list[str]:
    """Which of `RESOURCES` were given, as options."""
    return [f"--{long}" for long in RESOURCES if getattr(options, _attribute(long))]


def help_text(program: str, usage: str, purpose: str, epilogue: str) -> str:
    """What `--help` prints."""
    lines = [f"Usage: {usage}", "", purpose, "", "Options:"]
    for option in options_of(program):
        short = f"-{option.short}, " if option.short else "    "
        value = f"={option.metavar}" if option.metavar else ""
        names = f"  {short}--{option.long}{value}"
        lines.append(f"{names:<32}{option.help}" if len(names) < 31 else f"{names}\n{'':<32}{option.help}")
    return "\n".join([*lines, "", epilogue, ""])


def _attribute(long: str) -> str:
    return next(option.attribute for option in OPTIONS if option.long == long)


def _read_short(known: Sequence[Option], word: str, rest: list[str], found: list[Assignment]) -> None:
    """A cluster of short options: `-l`, `-n4`, `-ln4`, `-n 4`."""
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        option = next((option for option in known if option.short == letter), None)
        if option is None:
            raise UsageError(f"unknown option -{letter}")
        if option.read is None:
            found.append(_assignment(option, f"-{letter}", None, rest))
        else:
            found.append(_assignment(option, f"-{letter}", letters or None, rest))
            return


def _long_option(known: Sequence[Option], name: str) -> Option:
    """By its name, or by the beginning of it where that is clear."""
    matching = [option for option in known if option.long == name] or [
        option for option in known if name and option.long.startswith(name)
    ]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise UsageError(f"option --{name} could be {' or '.join(f'--{option.long}' for option in matching)}")
    raise UsageError(f"unknown option --{name}")


def _assignment(option: Option, name: str, value: str | None, rest: list[str]) -> Assignment:
    if option.read is None:
        return Assignment(option.attribute, option.constant)
    if value is None:
        if not rest:
            raise UsageError(f"option {name} needs a value: {option.metavar}")
        value = rest.pop(0)
    try:
        return Assignment(option.attribute, option.read(value))
    except OptionValueError as error:
        raise UsageError(f"option {name}: {error}") from error


def check_command(argv: Sequence[str]) -> None:
    """Raises UsageError: the command cannot be sent."""
    for number, word in enumerate(argv, start=1):
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"word {number} of the command is not UTF-8: {word!r}") from error


def fail_usage(program: str, error: UsageError) -> NoReturn:
    """Says what is wrong and ends the program."""
    import sys

    from cranecli import exits

    sys.stderr.write(f"{program}: error: {error}\nTry '{program} --help'.\n")
    raise SystemExit(exits.USAGE)
