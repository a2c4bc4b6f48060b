from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cranecli.submission.batch_script import BatchScript, from_command, option_lines
from cranecli.submission.option_values import OptionValueError, export_list, exported_environment
from cranecli.submission.options import OPTIONS, JobOptions, UsageError, apply, given_resources, help_text, options_of, parse

PROGRAMS = ("crun", "cbatch", "calloc")


def read(program: str, *words: str) -> tuple[JobOptions, list[str]]:
    options = JobOptions()
    assignments, rest = parse(program, words)
    apply(assignments, options)
    return options, rest


@pytest.mark.parametrize(
    ("words", "attribute", "value"),
    [
        (["-N", "2"], "nodes", 2),
        (["-N2"], "nodes", 2),
        (["--nodes=2"], "nodes", 2),
        (["--nodes", "2"], "nodes", 2),
        (["-c", "0.5"], "cpus_per_task", 0.5),
        (["--mem", "512"], "memory_bytes", 512 << 20),
        (["--mem=4G"], "memory_bytes", 4 << 30),
        (["--mem-per-cpu=2G"], "memory_per_cpu_bytes", 2 << 30),
        (["--gres=gpu"], "gres", "gpu:1"),
        (["--gres", "gpu:a100:2,nic:1"], "gres", "gpu:a100:2,nic:1"),
        (["--gres", "none"], "gres", ""),
        (["-G2"], "gpus", "2"),
        (["--gpus", "a100:3"], "gpus", "a100:3"),
        (["--gpus-per-node=1"], "gpus_per_node", "1"),
        (["--exclusive"], "exclusive", True),
        (["-t", "90"], "time_limit_s", 5400),
        (["-t1:30"], "time_limit_s", 90),
        (["-t", "1-02:03:04"], "time_limit_s", 93784),
        (["-t", "unlimited"], "time_limit_s", None),
        (["--job", "name"], "job_name", "name"),
        (["--export=A,B=1"], "export", ("A", "B=1")),
        (["-l"], "label", True),
        (["-ln3"], "ntasks", 3),
        (["--prolog", "none"], "prolog", ""),
        (["--prolog", "/bin/sh"], "prolog", "/bin/sh"),
        (["--task-prolog", "relative.sh"], "task_prolog", str(Path.cwd() / "relative.sh")),
    ],
)
def test_values(words: list[str], attribute: str, value: object) -> None:
    options, rest = read("crun", *words, "prog", "-n", "9")
    assert getattr(options, attribute) == value
    assert rest == ["prog", "-n", "9"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-N", "0"], "option -N: "),
        (["-N", "-1"], "option -N: "),
        (["--ntasks=many"], "option --ntasks: "),
        (["-c", "0"], "above 0"),
        (["-c", "nan"], "expected a number"),
        (["--mem", "0"], "above 0"),
        (["--mem", "4X"], "option --mem: "),
        (["--mem-per-cpu", "-1"], "option --mem-per-cpu: "),
        (["--mem=1G", "--mem-per-cpu=1G"], "--mem and --mem-per-cpu exclude each other"),
        (["--gpus=1", "--gpus-per-node=1"], "--gpus and --gpus-per-node exclude each other"),
        (["--gres=gpu:1", "--gpus=1"], "both ask for GPUs"),
        (["--gres=gpu:1", "--gpus-per-node=1"], "both ask for GPUs"),
        (["--gres", "gpu:x:y:2"], "expected name"),
        (["--gres", "gpu:0"], "expected a count"),
        (["--gres", ","], "expected name"),
        (["--gpus", "two:x:1"], "expected .type:.count"),
        (["--gpus", "1,nic:1"], "expected one .type:.count"),
        (["--exclusive=user"], "takes no value"),
        (["-t", "0"], "above 0"),
        (["-t", "1:99"], "option -t: "),
        (["-J", ""], "must not be empty"),
        (["-J", "a\nb"], "cannot be printed"),
        (["-J", "\udcff"], "option -J: "),
        (["--export", "1A"], "no name"),
        (["--export", "NONE,A"], "NONE stands alone"),
        (["--no"], "--nodes or --nodelist"),
        (["--nix"], "unknown option --nix"),
        (["-Z"], "unknown option -Z"),
        (["--label=yes"], "takes no value"),
        (["-n"], "needs a value"),
        (["--prolog", "/nonexistent/hook"], "does not exist"),
        (["--wrap", "x"], "unknown option --wrap"),
        (["-i", "7"], "expected none"),
    ],
)
def test_what_is_wrong_is_said(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read("crun", *words)


def test_two_dashes_end_the_options() -> None:
    assert read("crun", "-n2", "--", "-n", "x")[1] == ["-n", "x"]
    assert read("cbatch", "-")[1] == ["-"]


def test_the_last_of_several_wins() -> None:
    assert read("cbatch", "--no-requeue", "--requeue", "-n1", "-n2")[0].ntasks == 2
    assert read("cbatch", "--no-requeue", "--requeue")[0].requeue is True
    assert read("cbatch", "--requeue", "--no-requeue")[0].requeue is False


@given(st.lists(st.text(max_size=8), max_size=6), st.sampled_from(PROGRAMS))
def test_any_words_are_read_or_refused(words: list[str], program: str) -> None:
    try:
        assignments, rest = parse(program, words)
    except UsageError:
        return
    apply(assignments, JobOptions())
    assert rest == words[len(words) - len(rest) :]


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_help_names_every_option_and_no_name_is_taken_twice(program: str) -> None:
    text = help_text(program, "usage", "purpose", "end")
    mine = options_of(program)
    assert all(f"--{option.long}" in text for option in mine)
    assert len({option.long for option in mine}) == len(mine)
    shorts = [option.short for option in mine if option.short]
    assert len(set(shorts)) == len(shorts)
    assert all(hasattr(JobOptions, option.attribute) for option in OPTIONS)


def _lines(text: str) -> JobOptions:
    options = JobOptions()
    apply(option_lines(BatchScript("job.sh", text, [])), options)
    return options


def test_option_lines_end_with_the_first_command() -> None:
    options = _lines("#!/bin/sh\n\n# text\n#CBATCH -N 3\n#CBATCHES -N 4\n##CBATCH -N 5\necho\n#CBATCH -N 6\n")
    assert options.nodes == 3


def test_option_lines_are_split_as_a_shell_does() -> None:
    assert _lines("#!/bin/sh\n#CBATCH -J 'two words' # a remark\n").job_name == "two words"


@pytest.mark.parametrize("line", ["--wrap x", "--help", "-N 1 word", "-J 'open", "--nope"])
def test_a_wrong_line_is_named(line: str) -> None:
    with pytest.raises(UsageError, match=r"^job\.sh:3: "):
        _lines(f"#!/bin/sh\n#CBATCH -n1\n#CBATCH {line}\n")


def test_wrap_makes_a_script() -> None:
    assert from_command("a | b").text.splitlines()[0] == "#!/bin/sh"


@pytest.mark.parametrize(
    ("export", "expected"),
    [
        ("ALL", {"A": "1", "B": "2"}),
        ("NONE", {}),
        ("A", {"A": "1"}),
        ("A,C=x,MISSING", {"A": "1", "C": "x"}),
        ("ALL,A=9", {"A": "9", "B": "2"}),
        ("C='x,y'", {"C": "x,y"}),
    ],
)
def test_export(export: str, expected: dict[str, str]) -> None:
    environment, warnings = exported_environment(export_list(export), {b"A": b"1", b"B": b"2"})
    assert (environment, warnings) == (expected, [])


def test_an_entry_that_is_not_utf8_is_skipped_with_a_warning() -> None:
    environment, warnings = exported_environment(("ALL",), {b"A": b"\xff", b"\xfe": b"1", b"B": b"2"})
    assert environment == {"B": "2"}
    assert len(warnings) == 2


def test_an_open_quote_is_refused() -> None:
    with pytest.raises(OptionValueError, match="not closed"):
        export_list("A='x")


def test_the_command_line_takes_the_place_of_what_excludes_it_in_the_script() -> None:
    script = BatchScript("job.sh", "#!/bin/sh\n#CBATCH --mem=1G --gpus=2\n", [])
    assignments, _ = parse("cbatch", ["--mem-per-cpu=100M", "--gpus-per-node=1"])
    options = JobOptions()

    apply([*option_lines(script), *assignments], options)

    assert (options.memory_bytes, options.memory_per_cpu_bytes) == (0, 100 << 20)
    assert (options.gpus, options.gpus_per_node) == ("", "1")


def test_resources_of_jobs_are_told_apart() -> None:
    options, _ = read("crun", "-n2", "--mem=1G", "--gres=gpu:1", "prog")
    assert given_resources(options) == ["--mem", "--gres"]
