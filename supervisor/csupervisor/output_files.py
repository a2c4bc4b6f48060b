"""Names of a job's output files: the patterns of cbatch's --output and --error."""

import os
import re
from typing import Final

from csupervisor.bootstrap import Bootstrap

DEFAULT_PATTERN: Final = "Crane-%j.out"
_PATTERN: Final = re.compile(r"%(?:%|(\d*)([jJxuNAat]))")


def output_path(pattern: str, bootstrap: Bootstrap) -> str:
    """The absolute path that a pattern means: `%j` job, `%J` job.step, `%x` job name, `%u` user, `%N` node, `%A` and `%a`
    the array's job and index, `%t` the first task here, `%%` a percent sign; `%4j` pads a number with zeros.

    What is no pattern stays as it is. A value brings in no directory: a `/` in a job's name becomes `_`.
    """
    job, key = bootstrap.job, bootstrap.key
    values = {
        "j": str(key.job_id),
        "J": f"{key.job_id}.{key.step_id}",
        "x": job.name,
        "u": job.user,
        "N": bootstrap.node,
        "A": str(key.job_id if job.array_job_id is None else job.array_job_id),
        "a": str(0 if job.array_task_id is None else job.array_task_id),
        "t": str(bootstrap.tasks[0].task_id),
    }

    def expand(match: re.Match[str]) -> str:
        width, letter = match.groups()
        if letter is None:
            return "%"
        value = values[letter].replace("/", "_")
        return value.rjust(min(int(width), 10), "0") if width and value.isdigit() else value

    return os.path.normpath(os.path.join(bootstrap.cwd, _PATTERN.sub(expand, pattern or DEFAULT_PATTERN)))  # noqa: PTH118 - text
