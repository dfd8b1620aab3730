"""What is drawn from the API's JSON, without a server."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from clew import terminal

RUN_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
START_NS = 1_750_000_000_000_000_000


def _event(depth: int, name: str = "step", **other: Any) -> dict[str, Any]:
    return {
        "depth": depth,
        "name": name,
        "event_type": "info",
        "status": "completed",
        "status_message": "",
        "started_at_unix_nano": str(START_NS),
        "completed_at_unix_nano": str(START_NS + 1_000_000),
        "duration_ns": 1_000_000,
        "input_tokens": None,
        "output_tokens": None,
        "cost_usd": None,
        **other,
    }


def _tree(*events: dict[str, Any], **other: Any) -> dict[str, Any]:
    run = {
        "id": RUN_ID,
        "name": "run",
        "status": "completed",
        "started_at_unix_nano": str(START_NS),
        "duration_ns": 1_000_000,
        "event_count": len(events),
        "error_count": 0,
    }
    return {"run": run, "events": list(events), "roots": 1, "orphans": 0, "cycles": 0, **other}


def _drawn(tree: dict[str, Any], *, width: int = 200, depth_max: int = 100, lines_max: int = 1000) -> list[str]:
    """The lines below the run's own two."""
    paper = StringIO()
    console = Console(file=paper, width=width, highlight=False)
    terminal.draw_tree(console, tree, depth_max=depth_max, lines_max=lines_max)
    return paper.getvalue().splitlines()[2:]


def test_a_task_is_shown_beside_the_run() -> None:
    """Recorded runs are mostly called alike; the first line of the task tells them apart."""
    run = {**_tree()["run"], "agent": "engineer", "task_description": "Which stores lost customers?\nSay why."}
    paper = StringIO()
    console = Console(file=paper, width=200, highlight=False)
    terminal.draw_runs(console, {"runs": [run], "next_cursor": None})
    assert "run  Which stores lost customers?  engineer" in paper.getvalue()
    assert "Say why" not in paper.getvalue()
    terminal.draw_tree(console, {**_tree(_event(0)), "run": run}, depth_max=1, lines_max=1)
    assert "\nWhich stores lost customers?\n" in paper.getvalue()
    assert "Say why" not in paper.getvalue()


def _names(lines: list[str]) -> list[str]:
    return [line.split("  ✓")[0].rstrip() for line in lines]


def test_branches_show_who_belongs_to_whom() -> None:
    """A branch goes on as long as siblings follow."""
    depths = [0, 1, 2, 2, 1, 2, 3]
    assert _names(_drawn(_tree(*(_event(depth, f"e{index}") for index, depth in enumerate(depths))))) == [
        "○ e0",
        "├─ ○ e1",
        "│  ├─ ○ e2",
        "│  └─ ○ e3",
        "└─ ○ e4",
        "   └─ ○ e5",
        "      └─ ○ e6",
    ]


def test_several_roots_stand_side_by_side() -> None:
    """Roots and events whose parent never came begin at the margin; the latter say so."""
    tree = _tree(_event(0, "first"), _event(1, "child"), _event(0, "stray", orphan=True), orphans=1)
    assert _names(_drawn(tree)) == [
        "○ first",
        "└─ ○ child",
        "○ stray  (parent never came)",
        "1 event whose parent never came",
    ]


def test_an_open_event_has_no_duration_yet() -> None:
    """It is not drawn as one that took no time."""
    opened = _event(0, "open", status="running", completed_at_unix_nano="0", duration_ns=0)
    assert _drawn(_tree(opened, _event(1))) == ["○ open     …", "└─ ○ step  ✓  1 ms"]


def test_a_cycle_is_told() -> None:
    """An event that is its own ancestor is marked and counted."""
    lines = _names(_drawn(_tree(_event(0, "snake", cycle=True), cycles=1)))
    assert lines == ["○ snake  (its own ancestor)", "1 event on a cycle: its own ancestor"]


def test_a_subtree_begins_at_the_margin() -> None:
    """A part of a tree keeps its depths; it is drawn from its own top, and --depth counts from there."""
    tree = _tree(_event(5, "top"), _event(6, "below"), _event(7, "deep"))
    assert _names(_drawn(tree, depth_max=1)) == [
        "○ top",
        "└─ ○ below  +1 below",
        "… 1 event below the last level shown: --depth 2 shows all",
    ]


def test_what_the_limit_leaves_out_is_counted() -> None:
    """Deeper events after the last line count as the rest, not as below it, once a line was left out."""
    tree = _tree(_event(0), _event(1), _event(1), _event(2), _event(1))
    assert _drawn(tree, lines_max=2)[2:] == ["… 3 more events after these: --limit 5 shows all"]


def test_a_deep_chain_stays_readable() -> None:
    """A chain of 20,000 is drawn whole when asked for, with branches no wider than a terminal."""
    lines = _drawn(_tree(*(_event(depth, "link") for depth in range(20_000))), depth_max=20_000, lines_max=20_000)
    assert len(lines) == 20_000
    assert lines[-1].startswith("⋯ ")
    assert max(map(len, lines)) < 70


def test_an_empty_tree_is_no_error() -> None:
    """A run whose events are not there yet has a title and no lines."""
    assert _drawn(_tree()) == []


def test_names_cannot_move_the_cursor() -> None:
    """Control characters, line ends and direction marks in telemetry are shown as a sign for something unprintable."""
    [line] = _drawn(_tree(_event(0, "a\x1b[2Jb\nc\rd\u202ee[red]f")))
    assert line.startswith("○ a�[2Jb�c�d�e[red]f ")


def test_a_long_name_gives_way_to_the_figures() -> None:
    """In a narrow terminal the name is cut, the figures are whole."""
    [line] = _drawn(_tree(_event(0, "n" * 400, input_tokens=1_000, output_tokens=500, cost_usd=1.25)), width=60)
    assert len(line) == 60
    assert line.endswith("n…  ✓  1 ms  1,500 tok  $1.2500")


@pytest.mark.parametrize(
    ("duration_ns", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1_000, "1 µs"),
        (12_345_678, "12 ms"),
        (999_600_000, "1.0 s"),
        (1_000_000_000, "1.0 s"),
        (59_960_000_000, "1 m 00 s"),
        (83_000_000_000, "1 m 23 s"),
        (3_723_000_000_000, "1 h 02 m"),
        (90_000_000_000_000, "25 h 00 m"),
    ],
)
def test_durations_have_the_unit_that_suits_them(duration_ns: int, text: str) -> None:
    """Three digits or so, never a number that belongs to the next unit."""
    assert terminal.duration_text(duration_ns) == text


@pytest.mark.parametrize(
    ("cost_usd", "text"), [(None, ""), (0.00566, "$0.0057"), (1234.5, "$1,234.5000"), ("NaN", "NaN")]
)
def test_costs_are_dollars(cost_usd: float | str | None, text: str) -> None:
    """To a hundredth of a cent; what is not known is blank, what is not a number is said."""
    assert terminal.cost_text(cost_usd) == text


def test_what_is_cut_off_says_so() -> None:
    """In a terminal that is too narrow for the numbers of a line."""
    event = _event(0, "n" * 400, input_tokens=1_234_567, output_tokens=98_765, cost_usd=1.25)
    [whole], [cut] = (_drawn(_tree(event), width=width) for width in (80, 34))
    assert "$1.2500" in whole
    assert cut.endswith("…")
    assert len(cut) == 34


def test_signs_of_several_stay_together() -> None:
    """Joined emoji are one; what could move the cursor is not shown."""
    [line] = _drawn(_tree(_event(0, "👩\u200d👩\u200d👧 \x1b[2J")))
    assert "👩\u200d👩\u200d👧 �[2J" in line
