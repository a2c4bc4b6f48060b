"""The program `cranectld`: reads its arguments and its configuration, then serves."""

import argparse
import os
import sys
from pathlib import Path

USAGE_ERROR = 2


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 after a stop, 1 when it cannot start, 2 for arguments or a configuration that are wrong."""
    arguments = _parser().parse_args(argv)
    from cranectld.configuration import Configuration, checked
    from cranekit import logs
    from cranekit.daemon import Stop, protect_from_oom_killer, run_daemon
    from cranekit.rpc.credentials import identity_of_peer
    from cranekit.yaml_lines import SettingsError

    try:
        settings = checked(arguments.check_config or arguments.config)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return USAGE_ERROR
    if arguments.check_config is not None:
        sys.stderr.writelines(f"{caution}\n" for caution in settings.cautions)
        sys.stdout.write(f"{arguments.check_config}: ok (cluster {settings.cluster_name}, {len(settings.nodes)} nodes)\n")
        return 0
    own_user = identity_of_peer(os.geteuid(), os.getegid()).user
    if settings.cranectld_user not in (None, own_user):
        message = f"cranectld runs as {own_user}, {arguments.config} wants CranectldUser {settings.cranectld_user}"
        sys.stderr.write(f"cranectld: error: {message}\n")
        return USAGE_ERROR
    logs.configure(arguments.log_level or settings.log_level.value)
    configuration = Configuration(arguments.config, settings)
    configuration.tell_cautions(settings)
    protect_from_oom_killer()

    from cranectld.app import serve

    async def run(stop: Stop) -> None:
        await serve(configuration, stop, arguments.ready_file)

    return run_daemon(run, reload=configuration.reload)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cranectld",
        description="The controller of the cluster: jobs, nodes, decisions, CranectldProlog and CranectldEpilog.",
        epilog="SIGHUP reads the configuration again; SIGTERM stops.",
    )
    parser.add_argument(
        "--config", type=Path, default=Path("/etc/crane/config.yaml"), metavar="FILE", help="default: %(default)s"
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
