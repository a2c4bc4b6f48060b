"""`hookctl demo`."""

import typer

from cranecli.hookctl.failure import CommandError


def demo() -> None:
    """Show what hooks do, on this machine.

    A small cluster, two jobs, and a Prolog that fails. Leaves nothing behind.
    """
    from cranecli.hookctl.demo.story import tell
    from cranecli.hookctl.local import interruptible
    from cranecli.hookctl.local_daemons import StartError

    with interruptible():
        try:
            status = tell()
        except StartError as error:
            raise CommandError(str(error)) from error
    raise typer.Exit(status)
