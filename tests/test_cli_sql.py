"""`clew sql`: a query and its forms, queries from stdin, and the shell as it is typed in."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

Clew = Callable[..., subprocess.CompletedProcess[str]]
SHOWN_S = 30
CTRL_C, CTRL_D, ENTER, TAB = "\x03", "\x04", "\r", "\t"
# The terminal is asked where its cursor is, and says.
WHERE, HERE = b"\x1b[6n", b"\x1b[1;1R"


def test_a_query_is_drawn_as_a_table(demo_server: Any, clew: Clew) -> None:
    """A line of names, numbers to the right, and how many rows there are."""
    query = "SELECT agent_name, turns, NULL AS nothing FROM slowest_agents"
    assert clew("sql", query, "--url", demo_server.http_url).stdout.splitlines() == [
        "agent_name  turns  nothing",
        "engineer        1  NULL",
        "researcher      1  NULL",
        "planner         2  NULL",
        "3 rows",
    ]


def test_csv_json_and_arrow(demo_server: Any, clew: Clew, tmp_path: Path) -> None:
    """The API's forms, as they come."""
    asked = ("sql", "SELECT 'a' AS t, 1 AS n", "--url", demo_server.http_url)
    assert clew(*asked, "--csv").stdout == '"t","n"\n"a",1\n'
    assert json.loads(clew(*asked, "--json").stdout)["rows"] == [["a", 1]]
    assert clew(*asked, "--arrow", str(tmp_path / "a.arrow")).returncode == 0
    assert pa.ipc.open_stream((tmp_path / "a.arrow").read_bytes()).read_all().to_pydict() == {"t": ["a"], "n": [1]}


def test_a_truncated_answer_says_so(demo_server: Any, clew: Clew) -> None:
    """In the table's last line; on stderr where the answer is for programs."""
    asked = ("sql", "FROM range(5)", "--limit", "2", "--url", demo_server.http_url)
    assert clew(*asked).stdout.splitlines()[-1] == "2 rows, cut off: there are more"
    as_csv = clew(*asked, "--csv")
    assert as_csv.stdout == '"range"\n0\n1\n'
    assert "cut off" in as_csv.stderr


def test_mistakes_end_in_one_word_and_exit_code_1(demo_server: Any, clew: Clew) -> None:
    """What the server refuses, a server that is not there, a file that cannot be written."""
    url = ("--url", demo_server.http_url)
    refused = clew("sql", "DROP TABLE sessions", *url)
    assert (refused.returncode, refused.stderr) == (1, "clew: only SELECT is answered; this is DROP\n")
    nobody = clew("sql", "SELECT 1", "--url", "http://127.0.0.1:9")
    assert (nobody.returncode, "nothing answers" in nobody.stderr) == (1, True)
    unwritten = clew("sql", "SELECT 1", "--arrow", "/nowhere/a.arrow", *url)
    assert (unwritten.returncode, "cannot be written" in unwritten.stderr) == (1, True)
    assert clew("sql", "SELECT 1", "--csv", "--json", *url).returncode == 2


def test_queries_come_from_stdin(demo_server: Any, environment: Mapping[str, str]) -> None:
    """One after the other, each up to a line that ends with a semicolon."""
    piped = subprocess.run(
        [sys.executable, "-m", "clew", "sql", "--csv", "--url", demo_server.http_url],
        input="SELECT ';' AS a;\n\nSELECT\n  2 AS b;\nSELECT 3 AS c",
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=True,
    )
    assert piped.stdout == '"a"\n";"\n"b"\n2\n"c"\n3\n'


def test_text_from_telemetry_cannot_move_the_cursor(demo_server: Any, clew: Clew) -> None:
    """Signs that a terminal would obey are shown as signs."""
    drawn = clew("sql", "SELECT chr(27) || '[2J' AS t", "--url", demo_server.http_url).stdout
    assert "\x1b" not in drawn


@dataclass
class Shell:
    """`clew sql` in a terminal."""

    terminal: int
    process: subprocess.Popen[bytes]

    def types(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    def shows(self, wanted: str) -> str:
        """What appears until `wanted` does."""
        shown = b""
        while wanted.encode() not in shown:
            assert select.select([self.terminal], [], [], SHOWN_S)[0], f"no {wanted!r} in {shown.decode()}"
            portion = os.read(self.terminal, 65536)
            shown += portion
            if WHERE in portion:
                os.write(self.terminal, HERE)
        return shown.decode(errors="replace")


@pytest.fixture
def shell(demo_server: Any, environment: Mapping[str, str]) -> Iterator[Shell]:
    outer, inner = pty.openpty()
    command = [sys.executable, "-m", "clew", "sql", "--url", demo_server.http_url]
    streams = {"stdin": inner, "stdout": inner, "stderr": inner}
    process = subprocess.Popen(command, **streams, env={**environment, "TERM": "xterm"}, start_new_session=True)
    os.close(inner)
    yield Shell(outer, process)
    process.kill()
    process.wait()
    os.close(outer)


def test_the_shell(shell: Shell) -> None:
    """Several lines until a semicolon; tables and schema are told; a mistake and Ctrl-C go on, Ctrl-D leaves."""
    shell.shows("clew>")
    shell.types("SELECT count(*) AS spans" + ENTER)
    shell.shows("...")
    shell.types("FROM spans;" + ENTER)
    assert "26" in shell.shows("1 row")
    shell.shows("clew>")
    shell.types("tables" + ENTER)
    assert "slowest_agents" in shell.shows("workflow_steps")
    shell.shows("clew>")
    shell.types("schema stuck_runs" + ENTER)
    shell.shows("open_agent")
    shell.shows("clew>")
    shell.types("nonsense;" + ENTER)
    shell.shows("Parser Error")
    shell.shows("clew>")
    shell.types("half a que" + CTRL_C)
    shell.shows("clew>")
    shell.types("SELECT 40 + 2 AS after;" + ENTER)
    assert "42" in shell.shows("1 row")
    shell.shows("clew>")
    shell.types(CTRL_D)
    assert shell.process.wait(SHOWN_S) == 0


def test_the_shell_completes_names(shell: Shell) -> None:
    """Tab finishes the name of a view."""
    shell.shows("clew>")
    shell.types("FROM slowest_a" + TAB)
    shell.shows("gents")
    shell.types(" SELECT 1 AS one;" + ENTER)
    shell.shows("3 rows")


def test_the_shell_remembers(shell: Shell, environment: Mapping[str, str]) -> None:
    """What was typed is in the history, in the data folder."""
    shell.shows("clew>")
    shell.types("SELECT 'remembered' AS t;" + ENTER)
    shell.shows("1 row")
    history = Path(environment["XDG_DATA_HOME"]) / "clew" / "sql_history"
    assert "+SELECT 'remembered' AS t;" in history.read_text()
