"""`csupervisor --check-config FILE`: looks at a configuration for the task hooks, and does nothing else.

A running supervisor reads no file: what it needs comes with its bootstrap. So this is loaded only when it is asked for.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Final

from cranehooks.execution import scripts
from cranehooks.model.points import Runner, points_of
from cranehooks.settings import load
from cranekit.yaml_lines import SettingsError

EXIT_WRONG: Final = 2


def check_config(path: Path) -> int:
    """The exit status: 0, or 2 with every problem and its place on stderr."""
    try:
        settings = load(path)
    except SettingsError as error:
        return _tell(str(error))
    problems = settings.check_scripts(points_of(Runner.CSUPERVISOR), partial(scripts.problem_of, settings.profile))
    if problems:
        return _tell(str(SettingsError(problems)))
    sys.stderr.writelines(f"{caution}\n" for caution in settings.cautions)
    sys.stdout.write(f"{path}: ok (cluster {settings.cluster_name}, {len(settings.nodes)} nodes)\n")
    return 0


def _tell(problems: str) -> int:
    sys.stderr.write(f"{problems}\n")
    return EXIT_WRONG
