"""The commands. Each imports what it needs when it runs, so that `clew --help` is there at once.

A user's mistake ends in one line on stderr and exit code 1, never in a traceback.
"""

import errno
import os
import sys
from typing import Annotated

import typer

from .. import __version__
from .compacting import compact
from .exports import export_to, exports
from .figures import calls, compare, critical_path, figures
from .migrating import migrate
from .reading import files, graph, messages, runs, stats, tree
from .search import search
from .serving import serve
from .sql import sql
from .tail import tail
from .transfer import export_spans, import_files

app = typer.Typer(
    name="clew",
    help="A tracing backend for workflows of agents, over OpenTelemetry.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    serve,
    runs,
    search,
    tail,
    tree,
    stats,
    files,
    messages,
    graph,
    compact,
    figures,
    compare,
    critical_path,
    calls,
    sql,
    exports,
):
    app.command()(command)
app.command("export")(export_spans)
app.command("export-to")(export_to)
app.command("import")(import_files)
app.add_typer(migrate, name="migrate")


def main() -> None:
    """The command `clew`. Does not return: an interpreter that ends by itself first looks through all modules for
    garbage, for most of a second where the machine is slow, and what it leaves of the engine's the engine tells of."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without some sign shows "?" instead of failing
    try:
        code = _run()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"clew: the output cannot be written: {error.strerror}; make room and try again", file=sys.stderr)
        code = 1
    os._exit(code)


def _run() -> int:
    """Runs the command that is asked for until all that it says is written; gives its exit code."""
    try:
        app(prog_name="clew")
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    for stream in filter(None, (sys.stdout, sys.stderr)):  # there is none that the shell has closed
        stream.flush()
    return code


def _version(asked: bool) -> None:
    if asked:
        print(f"clew {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None: ...
