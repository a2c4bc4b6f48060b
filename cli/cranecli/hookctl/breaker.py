"""`hookctl breaker`: the drain budget of each script."""

import sys
from typing import Annotated

import typer

from cranecli.hookctl.page import Format, FormatOption, note, show, show_document

app = typer.Typer(
    help="Show and reset the drain budget of scripts.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@app.callback()
def breaker(context: typer.Context, output: FormatOption = Format.TABLE) -> None:
    """Show and reset the drain budget of scripts; without a command: list."""
    if context.invoked_subcommand is None:
        list_breakers(output)


@app.command("list")
def list_breakers(output: FormatOption = Format.TABLE) -> None:
    """Scripts that were charged with drains, and which are tripped."""
    from cranecli.hookctl.front import front
    from cranecli.render.documents import breaker_document
    from cranecli.render.records import breaker_record, objects
    from cranecli.render.style import style_of
    from cranecli.render.tables import breakers_table

    with front() as controller:
        answer = controller.call("ListBreakers", {})
        breakers = [breaker_record(item) for item in objects(answer, "breakers")]
    if output is Format.JSON:
        window_s = float(str(answer.get("window") or "0s").removesuffix("s"))
        show_document({"window_s": window_s, "breakers": [breaker_document(breaker) for breaker in breakers]})
    elif breakers:
        show(breakers_table(breakers, style_of(sys.stdout)))
    else:
        show(["no script has drained a node lately"])


@app.command("reset")
def reset_breaker(
    digest: Annotated[
        str, typer.Argument(metavar="[DIGEST]", help="Digest, or the beginning of it; all when left out.", show_default=False)
    ] = "",
) -> None:
    """Close breakers that tripped; the jobs they held stay held until `hookctl release`."""
    from cranecli.hookctl.front import front

    request = {"sha256": digest.lower()}
    with front() as controller:
        answer = controller.call("ResetBreaker", request)
    number = int(answer.get("reset") or 0)
    note(f"{number} breaker{'' if number == 1 else 's'} reset")
