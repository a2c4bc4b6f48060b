"""`hookctl import`: a slurm.conf as a configuration of ours."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from cranecli.hookctl.page import note


def import_slurm(
    file: Annotated[Path, typer.Argument(metavar="SLURM.CONF", help="Slurm's configuration file.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write there, where nothing is yet (default: stdout).")
    ] = None,
) -> None:
    """Turn a slurm.conf into a configuration of crane-hooks.

    Takes hooks, their timeouts and flags, nodes and partitions; says on stderr what did not come along, and why.
    """
    from cranecli.hookctl.failure import CommandError, ExitCode
    from cranecli.hookctl.slurm.conf import SlurmConfError
    from cranecli.hookctl.slurm.importing import import_conf

    try:
        imported = import_conf(file)
    except SlurmConfError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    for leftover in imported.leftovers:
        note(f"hookctl: {leftover}")
    if imported.passed_by:
        note(f"hookctl: not about hooks, left behind: {', '.join(imported.passed_by)}")
    problems = _problems(imported.text)
    if output is None:
        print(imported.text, end="")
    else:
        try:
            with output.open("x", encoding="utf-8") as stream:
                stream.write(imported.text)
        except FileExistsError as error:
            message = f"{output} exists: nothing was written"
            raise CommandError(message) from error
        except OSError as error:
            message = f"{output}: cannot be written: {error.strerror or error}"
            raise CommandError(message) from error
    if problems:
        message = f"the result needs a hand:\n{problems}"
        raise CommandError(message)


def _problems(text: str) -> str:
    """What a daemon would say of the text; empty: nothing."""
    from cranehooks.settings import load
    from cranekit.yaml_lines import SettingsError

    with TemporaryDirectory(prefix="hookctl-import-") as directory:
        path = Path(directory, "config.yaml")
        path.write_text(text, encoding="utf-8")
        try:
            load(path)
        except SettingsError as error:
            return str(error).replace(str(path), "config.yaml")
    return ""
