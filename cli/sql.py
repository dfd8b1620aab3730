"""`clew sql`: a query asked of a running server, or a shell where queries are typed."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import terminal
from ..settings import LOCAL_URL
from .asking import Url, asking, warn

if TYPE_CHECKING:
    from ..client import Client

JSON = "application/json"
CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"


def sql(
    query: Annotated[
        str | None, typer.Argument(metavar="QUERY", help="One SELECT; without it a shell, or queries from stdin.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="How many rows at most.", show_default="the server's")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the API's answer as it came.")] = False,
    arrow: Annotated[Path | None, typer.Option(metavar="FILE", help="Write an Arrow stream to this file.")] = None,
    url: Url = LOCAL_URL,
) -> None:
    """Ask by SQL: one SELECT over runs, events and whatever belongs to them. `--csv`, `--json` or `--arrow FILE`."""
    if sum((as_csv, as_json, arrow is not None)) > 1:
        raise typer.BadParameter("choose one of --csv, --json and --arrow")
    form = CSV if as_csv else ARROW if arrow else JSON
    with asking(url) as client:
        if query is None and sys.stdin.isatty():
            from .sql_shell import shell

            shell(client)
            return
        for one in [query] if query is not None else statements(sys.stdin.read()):
            answer, truncated = client.sql(one, form, limit)
            _tell(answer, truncated, as_json=as_json, arrow=arrow)


def draw(client: "Client", query: str) -> None:
    """Asks one query and draws its rows. Raises ClientError."""
    answer, _ = client.sql(query, JSON)
    terminal.draw_rows(terminal.console(), json.loads(answer))


def statements(written: str) -> list[str]:
    """The queries in a text, each up to a line that ends with a semicolon."""
    found, lines = [], list[str]()
    for line in written.splitlines():
        lines.append(line)
        if line.rstrip().endswith(";"):
            found.append("\n".join(lines))
            lines = []
    return [query for query in (*found, "\n".join(lines)) if query.strip().strip(";")]


def _tell(answer: bytes, truncated: bool, *, as_json: bool, arrow: Path | None) -> None:
    if arrow is not None:
        _write(arrow, answer)
    elif answer[:1] == b"{" and not as_json:
        terminal.draw_rows(terminal.console(), json.loads(answer))
        return
    else:
        print(answer.decode(), end="\n" if as_json else "", flush=True)
    if truncated:
        warn("the answer is cut off, there are more rows; see --limit, and --sql-rows-max of clew serve")


def _write(path: Path, answer: bytes) -> None:
    from ..client import ClientError

    try:
        path.write_bytes(answer)
    except OSError as error:
        raise ClientError(f"{path} cannot be written: {error.strerror}") from error
