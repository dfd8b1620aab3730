"""Where queries are typed: history, completion, several lines until a semicolon."""

from __future__ import annotations

import json
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import Completer, WordCompleter
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory

from .. import terminal
from ..client import Client, ClientError
from ..settings import data_folder
from .asking import say
from .sql import draw

HELP = """A query ends with a semicolon. Besides:
  tables         what there is
  schema TABLE   the columns of a table or view
  exit           leaves, as Ctrl-D does; Ctrl-C drops what is typed or asked"""
_COMMANDS = ("tables", "schema", "help", "exit", "quit")
_KEYWORDS = (
    *("SELECT", "FROM", "WHERE", "GROUP BY", "ORDER BY", "HAVING", "LIMIT", "DISTINCT", "JOIN", "LEFT JOIN", "USING"),
    *("WITH", "RECURSIVE", "UNION ALL", "CASE", "WHEN", "THEN", "ELSE", "END", "BETWEEN", "LIKE", "IS NOT NULL"),
    *("FILTER", "OVER", "PARTITION BY", "DESC"),
)


def shell(client: Client) -> None:
    """Asks what is typed until Ctrl-D. Raises ClientError where the server cannot be asked at all."""
    schema = json.loads(client.get("/api/sql/schema"))
    session = _session(schema)
    say(f"clew sql on {client.url} · help, tables, schema TABLE · a query ends with ;")
    while True:
        try:
            typed = session.prompt("clew> ", prompt_continuation="  ... ").strip()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        if typed.rstrip(";") in ("exit", "quit"):
            return
        _answer(client, schema, typed)


def _session(schema: dict[str, Any]) -> PromptSession[str]:
    folder = data_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return PromptSession(
        history=FileHistory(str(folder / "sql_history")),
        completer=_completer(schema),
        complete_while_typing=False,
        multiline=Condition(_is_unfinished),
    )


def _completer(schema: dict[str, Any]) -> Completer:
    tables = [table["name"] for table in schema["tables"]]
    columns = {column["name"] for table in schema["tables"] for column in table["columns"]}
    return WordCompleter([*tables, *sorted(columns), *_KEYWORDS, *_COMMANDS], ignore_case=True)


def _is_unfinished() -> bool:
    typed = get_app().current_buffer.text.strip()
    return bool(typed) and not typed.endswith(";") and typed.split()[0].lower() not in _COMMANDS


def _answer(client: Client, schema: dict[str, Any], typed: str) -> None:
    command, _, table = typed.rstrip(";").partition(" ")
    try:
        if command.lower() == "tables":
            terminal.draw_tables(terminal.console(), schema)
        elif command.lower() == "schema":
            _draw_schema(schema, table.strip())
        elif command.lower() == "help":
            say(HELP)
        elif typed.strip(";"):
            draw(client, typed)
    except ClientError as error:
        say(f"{error}")
    except KeyboardInterrupt:
        say("dropped")


def _draw_schema(schema: dict[str, Any], name: str) -> None:
    named = [table for table in schema["tables"] if table["name"] == name.lower()]
    if named:
        terminal.draw_columns(terminal.console(), named[0])
    else:
        say("there is no such table or view; `tables` lists them")
