"""TaskProlog and TaskEpilog: what their words do to the task, and what their failure does."""

from collections.abc import Mapping

from tests.conformance.comparison import comparison
from tests.conformance.comparisons.failures import failed_step, job_rows
from tests.conformance.stage import Stage

DIRECTIVES: Mapping[str, tuple[str, ...]] = {
    "plain": ("export T_PLAIN=value",),
    "quotes and dollars stay": ("export T_QUOTES=\"a b\" '$HOME' `id`",),
    "value with equals": ("export T_EQUALS=a=b==c",),
    "empty value": ("export T_EMPTY=",),
    "blanks after the word": ("export    T_SPACES=x",),
    "blanks around the equals sign": ("export T_AROUND = x",),
    "trailing blanks": ("export T_TRAILING=x  ",),
    "tab after the word": ("export\tT_TAB=x",),
    "not at the line's beginning": (" export T_INDENTED=x",),
    "upper case": ("EXPORT T_UPPER=x",),
    "no equals sign": ("export T_NOTHING",),
    "last one wins": ("export T_TWICE=1", "export T_TWICE=2"),
    "unset": ("export T_GONE=1", "unset T_GONE"),
    "unset of the user's": ("unset T_USERS",),
    "unset with blanks": ("export T_GONE_TOO=1", "unset   T_GONE_TOO  "),
    "unset of two at once": ("export T_A=1", "export T_B=1", "unset T_A T_B"),
    "noise": ("some words", "+ set -x noise", "exportT_NOISE=x", "unsetT_USERS"),
    "carriage return": ("export T_RETURN=x\r",),
    "bytes beyond ASCII": ("export T_UTF=ä€",),
    "odd name": ("export T-ODD.NAME=x",),
    "name of a function": ("export T_FUNCTION%%=() {  echo hello; }",),
    "unset of an odd name": ("export T-GONE.NAME=1", "unset T-GONE.NAME"),
    "form feed after the word": ("export \fT_FEED=x",),
    "form feed before the equals sign": ("export T_FEED_AFTER\f=x",),
    "carriage return after unset": ("export T_GONE_AS_WELL=1", "unset T_GONE_AS_WELL\r"),
}
"""What a TaskProlog prints, line by line."""


MOST_BYTES = 128 * 1024 - 1
"""Of a variable, name, equals sign, value and end byte together."""


@comparison("TaskProlog/directives")
def directives_of_a_task_prolog(stage: Stage) -> Mapping[str, str]:
    rows: dict[str, str] = {}
    # One task for all: the names are distinct.
    path = stage.notes / "lines"
    path.write_text(
        "".join(f"{line}\n" for lines in DIRECTIVES.values() for line in lines) + "export T_LAST=no newline", newline=""
    )
    path.chmod(0o644)
    stage.hook("TaskProlog", f"/bin/cat {path}")
    result = stage.srun("sh", "-c", "/usr/bin/tr '\\0' '\\n' < /proc/$$/environ", env={"T_USERS": "1"})
    stage.idle()
    found = dict(line.split("=", 1) for line in result.stdout.split("\n") if line.startswith("T") and "=" in line)
    for name, lines in DIRECTIVES.items():
        names = sorted(
            {
                line.split()[-1 if len(line.split()) == 1 else 1].split("=")[0]
                for line in lines
                if "T" in line.partition(" ")[2] or "\t" in line
            }
        )
        rows[name] = ", ".join(f"{key}={found[key]!r}" if key in found else f"{key} unset" for key in names) or "nothing"
    rows["all"] = " ".join(sorted(name for name in found if name.startswith(("T_", "T-"))))
    rows["last line without a newline"] = repr(found.get("T_LAST"))
    rows["exit code of srun"] = str(result.code)
    return rows


@comparison("TaskProlog/print")
def prints_of_a_task_prolog(stage: Stage) -> Mapping[str, str]:
    rows: dict[str, str] = {}
    cases = {
        "plain": "printf 'print hello\\n'",
        "blanks": "printf 'print    hello   world  \\n'",
        "two lines": "printf 'print one\\nprint two\\n'",
        "not at the line's beginning": "printf ' print hello\\n'",
        "word alone": "printf 'print\\n'",
        "no newline": "printf 'print hello'",
        "with quotes": "printf 'print \"a\" $HOME\\n'",
        "on stderr": "printf 'print hello\\n' >&2",
        "noise on stderr": "printf 'noise\\n' >&2; printf 'print hello\\n'",
        "blank text": "printf 'print \\nprint   \\nprint done\\n'",
        "leading tab": "printf 'print \\t\\fhello\\n'",
        "carriage return": "printf 'print hello\\r\\n'",
        "export on stderr": "printf 'export T_ERR=x\\n' >&2",
    }
    for name, command in cases.items():
        stage.hook("TaskProlog", command)
        result = stage.srun("sh", "-c", "echo task $T_ERR")
        rows[name] = f"{result.stdout!r} {result.stderr!r}"
    stage.idle()
    return rows


@comparison("TaskProlog/odd output")
def odd_output_of_a_task_prolog(stage: Stage) -> Mapping[str, str]:
    rows: dict[str, str] = {}
    cases = {
        "after a NUL": b"export T_A=1\nexport T_B=2\0\nexport T_C=3\n",
        "name with a blank": b"export T_A B=1\n",
        "no name": b"export =1\nexport T_A=1\n",
        "bytes that are no text": b"export T_A=\xff\xfe\n",
        "as long as may be": b"export T_A=%s\nexport T_B=1\n" % (b"x" * (MOST_BYTES - len("T_A") - 2)),
        "too long": b"export T_A=%s\nexport T_B=1\n" % (b"x" * (MOST_BYTES - len("T_A") - 1)),
    }
    look = "/usr/bin/tr '\\0' '\\n' < /proc/$$/environ | /bin/grep -a ^T_ | /bin/sed 's/xxxxx*/longer/' | /usr/bin/od -An -c -w99"
    for name, output in cases.items():
        path = stage.notes / "output"
        path.write_bytes(output)
        path.chmod(0o644)
        stage.hook("TaskProlog", f"/bin/cat {path}")
        result = stage.srun("sh", "-c", look)
        rows[name] = " ".join(result.stdout.split())
    stage.idle()
    return rows


@comparison("TaskProlog/batch script")
def task_prolog_of_a_batch_script(stage: Stage) -> Mapping[str, str]:
    stage.hook("TaskProlog", "echo export T_BATCH=x", "echo print hello")
    stage.submit("echo batch $T_BATCH")
    job = stage.settled()
    stage.idle()
    return {"output": repr(stage.note("output")), "job state": job.state}


@comparison("TaskProlog/each task its own")
def task_prolog_acts_on_its_task(stage: Stage) -> Mapping[str, str]:
    stage.hook("TaskProlog", '[ "$SLURM_PROCID" = 1 ] && echo export T_ONE=x', "exit 0")
    result = stage.srun("-n2", "sh", "-c", 'echo "$SLURM_PROCID:$T_ONE"')
    stage.idle()
    return {"output": " ".join(sorted(result.stdout.split()))}


@comparison("TaskProlog/order with --task-prolog")
def own_task_prolog_sees_the_first(stage: Stage) -> Mapping[str, str]:
    stage.hook("TaskProlog", "echo export T_FIRST=1", "echo export T_BOTH=1")
    stage.script("own", 'echo "export T_SEEN=$T_FIRST"', "echo export T_BOTH=2")
    stage.hook("TaskEpilog", 'echo "$T_FIRST.$T_SEEN" > @NOTES@/epilog'.replace("@NOTES@", str(stage.notes)))
    result = stage.srun(
        f"--task-prolog={stage.system.hooks}/own", "sh", "-c", "echo $T_FIRST $T_SEEN $T_BOTH $SLURM_SCRIPT_CONTEXT"
    )
    stage.idle()
    return {"task": result.stdout.strip(), "TaskEpilog sees": stage.note("epilog").strip()}


@comparison("TaskProlog/fails")
def task_prolog_fails(stage: Stage) -> Mapping[str, str]:
    stage.hook("TaskProlog", "echo print words", "exit 6")
    rows = failed_step(stage)
    return {**rows, "TaskEpilogs": stage.count("TaskEpilog")}


@comparison("TaskProlog/fails, output")
def task_prolog_fails_with_words(stage: Stage) -> Mapping[str, str]:
    stage.hook("TaskProlog", "echo print words", "exit 6")
    return {"stdout": repr(stage.srun("true").stdout)}


@comparison("TaskProlog/killed by a signal")
def task_prolog_is_killed(stage: Stage) -> Mapping[str, str]:
    stage.hook("TaskProlog", "kill -9 $$")
    return failed_step(stage)


@comparison("TaskProlog/killed by a signal, output")
def task_prolog_is_killed_after_words(stage: Stage) -> Mapping[str, str]:
    stage.hook("TaskProlog", "echo print words", "kill -9 $$")
    return {"stdout": repr(stage.srun("true").stdout)}


@comparison("TaskProlog/missing")
def task_prolog_is_missing(stage: Stage) -> Mapping[str, str]:
    stage.remove("task-prolog")
    return failed_step(stage)


@comparison("TaskProlog/fails for one of two tasks")
def task_prolog_fails_for_one_task(stage: Stage) -> Mapping[str, str]:
    stage.hook("TaskProlog", '[ "$SLURM_PROCID" = 0 ]')
    return failed_step(stage, "-n2")


@comparison("TaskProlog/fails in a batch job")
def task_prolog_fails_in_a_batch_job(stage: Stage) -> Mapping[str, str]:
    stage.hook("TaskProlog", "exit 6")
    stage.submit(f'echo "task" >> {stage.notes}/trace')
    job = stage.settled()
    stage.idle()
    return {**job_rows(job), "tasks that ran": stage.count("task"), "drained": stage.drained()}


@comparison("TaskEpilog/fails")
def task_epilog_fails(stage: Stage) -> Mapping[str, str]:
    stage.hook("TaskEpilog", "exit 6")
    return failed_step(stage)


@comparison("TaskEpilog/output")
def task_epilog_prints(stage: Stage) -> Mapping[str, str]:
    stage.hook("TaskEpilog", "echo out", "echo err >&2")
    result = stage.srun("true")
    stage.idle()
    return {"stdout": repr(result.stdout), "stderr": repr(result.stderr)}
