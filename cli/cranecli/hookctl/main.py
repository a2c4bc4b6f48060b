"""The command line of hookctl: declares the commands and turns every failure into one line and an exit status."""

import sys

import typer

from cranecli.front.descriptors import give_up_stdout, hold_standard_descriptors
from cranecli.hookctl import (
    backup,
    breaker,
    checks,
    demo_command,
    events,
    explain,
    import_command,
    jobs,
    local,
    nodes,
    plan,
    profile,
)
from cranecli.hookctl.failure import CommandError, ExitCode

app = typer.Typer(
    name="hookctl",
    help="See and steer the hooks of jobs: what ran, where, how it ended, and what was decided.",
    epilog="Exit status: 0 done, 1 refused or failed, 2 wrong usage or configuration, 3 no daemon reached, 5 not found.",
    no_args_is_help=True,
    add_completion=False,
    # Plain help: rich takes as long to import as all the rest.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(jobs.jobs)
app.command()(jobs.job)
app.command()(nodes.nodes)
app.command()(nodes.node)
app.add_typer(explain.app, name="explain")
app.command()(nodes.drain)
app.command()(nodes.resume)
app.command()(jobs.cancel)
app.command()(jobs.release)
app.command()(events.events)
app.add_typer(breaker.app, name="breaker")
app.command()(backup.backup)
app.command("check-scripts")(checks.check_scripts)
app.command("check-config")(checks.check_config)
app.command()(profile.profile)
app.command()(plan.plan)
app.command("import")(import_command.import_slurm)
app.command(context_settings={"allow_interspersed_args": False})(local.local)
app.command()(demo_command.demo)


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed_version

    print(f"hookctl {installed_version('crane-hooks')}")


def main() -> None:
    """Entry point."""
    hold_standard_descriptors()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command; never raises, never prints a traceback for what a person can cause."""
    try:
        status = app(arguments, prog_name="hookctl", standalone_mode=False)
        sys.stdout.flush()
    except CommandError as error:
        _complain(str(error))
        return error.status
    except typer.Abort:
        return 130
    except KeyboardInterrupt:
        return 130
    except typer.TyperException as error:
        _complain(_usage_message(error))
        return ExitCode.USAGE
    except SystemExit as error:
        # This is what typer makes of a broken pipe. All others are meant.
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        give_up_stdout()
        return ExitCode.OK
    except BrokenPipeError:
        # The reader has seen enough (`hookctl events | head`): nothing more may be written, not even at exit.
        give_up_stdout()
        return ExitCode.OK
    except OSError as error:
        give_up_stdout()
        _complain(_system_message(error))
        return ExitCode.REFUSED
    return status if isinstance(status, int) else ExitCode.OK


def _usage_message(error: typer.TyperException) -> str:
    formatted = getattr(error, "format_message", None)
    message = str(formatted() if formatted is not None else error).replace(": Value error, ", ": ")
    if message.startswith("Usage:"):
        return f"a command is missing\n{message}"
    return f"{message.rstrip('.')} (hookctl --help shows how)" if message else "wrong usage"


def _system_message(error: OSError) -> str:
    """What the system refused, and about which file; without one it was the output."""
    cause = (error.strerror or str(error)).lower()
    return f"cannot write the output: {cause}" if error.filename is None else f"{error.filename}: {cause}"


def _complain(message: str) -> None:
    first, *rest = message.splitlines() or [""]
    print(f"hookctl: error: {first}", *rest, sep="\n", file=sys.stderr)
