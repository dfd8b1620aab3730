"""The command that shows events as they are committed."""

from typing import Annotated

import typer

from .. import terminal
from ..settings import LOCAL_URL
from .asking import AsJson, Url, asking, say, warn


def tail(
    wanted: Annotated[
        str | None, typer.Argument(metavar="FILTER", help="Only events that this means, as `clew search` reads it.")
    ] = None,
    run: Annotated[str | None, typer.Option(help="Only events of this run: its id or the start of it.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Begin with what was committed after this: -5m, -1h, a date, or RFC 3339.")
    ] = None,
    url: Url = LOCAL_URL,
    as_json: AsJson = False,
) -> None:
    """Show events as they are committed, until Ctrl-C. A server that restarts is waited for."""
    from ..following import follow

    console = terminal.console()
    with asking(url, wanted) as client:
        run_id = None if run is None else client.run_id(run)
        try:
            for told in follow(client, filter=wanted, run_id=run_id, since=since):
                if told.event == "gap":
                    warn(told.data["message"])
                elif told.event == "event" and as_json:
                    say(told.text)
                elif told.event == "event":
                    terminal.draw_event(console, told.data)
        except KeyboardInterrupt:
            raise typer.Exit from None
