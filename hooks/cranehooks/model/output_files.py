"""Names of a job's output files: the patterns of cbatch's --output and --error. Pure text; nothing is looked up."""

import posixpath
import re
from typing import Final

from cranehooks.model.ids import BATCH_STEP, JobId, NodeName, StepId
from cranehooks.model.job import JobSpec

DEFAULT_PATTERN: Final = "Crane-%j.out"
_PATTERN: Final = re.compile(r"%(?:%|(\d*)([jJxuNAat]))")
_WIDEST: Final = 10


def output_path(
    pattern: str,
    spec: JobSpec,
    job_id: JobId,
    node: NodeName,
    *,
    step_id: StepId = BATCH_STEP,
    first_task: int = 0,
    cwd: str = "",
) -> str:
    """The absolute path that a pattern means: `%j` job, `%J` job.step, `%x` job name, `%u` user, `%N` node, `%A` and `%a`
    the array's job and index, `%t` the first task here, `%%` a percent sign; `%4j` pads a number with zeros.

    What is no pattern stays as it is. A value brings in no directory: a `/` in a job's name becomes `_`.

    Args:
        pattern: Empty for the default.
        spec: Of the job.
        job_id: Of the job.
        node: Where the file is written.
        step_id: Whose output it is.
        first_task: The step's first task on that node.
        cwd: What a relative path starts from; empty: the job's directory.
    """
    values = {
        "j": str(job_id),
        "J": f"{job_id}.{step_id}",
        "x": spec.name,
        "u": spec.user,
        "N": node,
        "A": str(job_id if spec.array_job_id is None else spec.array_job_id),
        "a": str(0 if spec.array_task_id is None else spec.array_task_id),
        "t": str(first_task),
    }

    def expand(match: re.Match[str]) -> str:
        width, letter = match.groups()
        if letter is None:
            return "%"
        value = values[letter].replace("/", "_")
        return value.rjust(min(int(width), _WIDEST), "0") if width and value.isdigit() else value

    return posixpath.normpath(posixpath.join(cwd or spec.cwd, _PATTERN.sub(expand, pattern or DEFAULT_PATTERN)))
