"""Where the output files of the step are that a supervisor runs."""

from cranehooks.model import output_files
from csupervisor.bootstrap import Bootstrap


def output_path(pattern: str, bootstrap: Bootstrap) -> str:
    """The absolute path that a pattern of --output or --error means here; empty: the default."""
    key = bootstrap.key
    return output_files.output_path(
        pattern,
        bootstrap.job,
        key.job_id,
        bootstrap.node,
        step_id=key.step_id,
        first_task=bootstrap.tasks[0].task_id,
        cwd=bootstrap.cwd,
    )
