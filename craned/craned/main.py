"""The program `craned`: reads its arguments and its configuration, starts its small helpers, then serves."""

import argparse
import os
import sys
from pathlib import Path

USAGE_ERROR = 2


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 after a stop, 1 when it cannot start, 2 for arguments or a configuration that are wrong."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    from craned.configuration import Configuration, checked
    from cranehooks.model.ids import NodeName
    from cranekit import logs
    from cranekit.errors import CraneError
    from cranekit.yaml_lines import SettingsError

    if arguments.check_config is None and bool(arguments.node) == arguments.login:
        parser.error("expected one of --node NAME and --login")
    path: Path = arguments.check_config or arguments.config
    try:
        settings = checked(path, is_login=arguments.login)
        if arguments.check_config is not None:
            sys.stderr.writelines(f"{caution}\n" for caution in settings.cautions)
            sys.stdout.write(f"{path}: ok (cluster {settings.cluster_name}, {len(settings.nodes)} nodes)\n")
            return 0
        configuration = Configuration(path, settings, NodeName(arguments.node) if arguments.node else None)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return USAGE_ERROR
    except CraneError as error:
        sys.stderr.write(f"craned: error: {error.message}\n")
        return USAGE_ERROR
    _forget_surrounding_job()
    logs.configure(arguments.log_level or settings.log_level.value, program="craned", node=arguments.node or "login")
    configuration.tell_cautions(settings)
    # After everything that a wrong call is told about, because the rest takes longer to import.
    from craned import life

    return life.run(configuration, arguments.run_dir, arguments.state_dir, arguments.ready_file)


def _forget_surrounding_job() -> None:
    """A daemon started inside a job, as in a trial, must not pass that job's variables on."""
    for name in [name for name in os.environ if name.startswith(("CRANE_JOB_", "CRANE_STEP_", "SLURM_"))]:
        del os.environ[name]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="craned",
        description="The node daemon: Prolog and Epilog, the steps of jobs, and the front ends of its host.",
        epilog="SIGHUP reads the configuration again; SIGTERM stops, and steps that run live on.",
    )
    parser.add_argument(
        "--config", type=Path, default=Path("/etc/crane/config.yaml"), metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument("--node", metavar="NAME", help="the node this is, by its name in the configuration")
    parser.add_argument("--login", action="store_true", help="serve the front ends of a login host, and no jobs")
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="sockets; default: RunDir of the configuration")
    parser.add_argument(
        "--state-dir", type=Path, metavar="DIR", help="the journal; default: NAME in StateDir of the configuration"
    )
    parser.add_argument(
        "--check-config", type=Path, metavar="FILE", help="only look at FILE: every problem with its place, exit 2"
    )
    parser.add_argument("--ready-file", type=Path, metavar="FILE", help="written when serving: addresses, as JSON")
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), help="default: LogLevel of the configuration"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
