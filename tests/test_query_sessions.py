"""Sessions over HTTP: listed, and summed up."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from clew.query import provenance_answers as told
from clew.storage import CostRecord, Session


def _session(rows: Any, session_id: str, at: int, **more: Any) -> None:
    rows.add(Session(id=session_id, created_at_unix_nano=rows.START + at, **more))


def test_sessions_are_listed_newest_first(rows: Any, api_reader: Any) -> None:
    """Following the cursor meets every session once, by creation, then id, both falling."""
    names = [f"session {number}" for number in range(7)]
    for number, name in enumerate(names):
        _session(rows, name, number // 3)

    met = api_reader.all_pages("/api/sessions", told.SessionPage, "sessions", limit=2)

    assert [session["id"] for session in met] == names[::-1]


def test_sessions_can_be_narrowed_by_status(rows: Any, api_reader: Any) -> None:
    """`status` leaves the sessions in it, with all that is known of them."""
    _session(rows, "old", 0, status="completed")
    _session(rows, "new", 1, status="active", name="brief", user_id="ada", last_active_at_unix_nano=rows.START + 9)

    assert api_reader.get("/api/sessions", told.SessionPage, status="active")["sessions"] == [
        {
            "id": "new",
            "user_id": "ada",
            "name": "brief",
            "status": "active",
            "created_at_unix_nano": str(rows.START + 1),
            "last_active_at_unix_nano": str(rows.START + 9),
        }
    ]


def test_session_sums_up_its_runs(rows: Any, api_reader: Any) -> None:
    """Runs by status, events, errors, tokens, cost and last activity are those of its own runs, and of no others."""
    _session(rows, "team/a", 0)
    _session(rows, "team/b", 0)
    done, failed, other = "a1" * 16, "a2" * 16, "b1" * 16
    rows.run(done, session_id="team/a", event_count=5, lasts=100)
    rows.run(failed, session_id="team/a", event_count=2, error_count=1, status="failed", at=50, lasts=200)
    rows.run(other, session_id="team/b", event_count=9, lasts=900)
    for run_id, source, usd in ((done, "reported", "0.25"), (failed, "estimated", "0.5"), (other, "reported", "8")):
        rows.add(
            CostRecord(
                run_id=run_id,
                source=source,
                cost_usd=usd,
                prompt_tokens=10,
                completion_tokens=5,
                total_tokens=15,
                time_unix_nano=rows.START,
            )
        )

    session = api_reader.get("/api/sessions/team/a", told.SessionFigures)

    assert session["runs_by_status"] == {"completed": 1, "failed": 1}
    assert (session["run_count"], session["event_count"], session["error_count"]) == (2, 7, 1)
    assert session["last_activity_unix_nano"] == str(rows.START + 250)
    assert session["costs"] == {
        "records": 2,
        "prompt_tokens": 20,
        "completion_tokens": 10,
        "total_tokens": 30,
        "cached_tokens": 0,
        "reasoning_tokens": 0,
        "cost_usd": 0.75,
        "estimated_usd": 0.5,
    }


def test_session_without_runs(rows: Any, api_reader: Any) -> None:
    """A session that has no run yet has figures all the same: zeros, no cost, active when it was made."""
    _session(rows, "empty", 7)

    session = api_reader.get("/api/sessions/empty", told.SessionFigures)

    assert (session["run_count"], session["runs_by_status"], session["event_count"]) == (0, {}, 0)
    assert session["costs"]["cost_usd"] is None
    assert session["last_activity_unix_nano"] == str(rows.START + 7)


@pytest.mark.parametrize(
    ("path", "status", "parameter"),
    [
        ("/api/sessions/nobody", 404, "session_id"),
        ("/api/sessions?cursor=nonsense", 400, "cursor"),
        ("/api/sessions?stat=active", 400, "stat"),
    ],
)
def test_what_cannot_be_answered_is_told(api_client: httpx.Client, path: str, status: int, parameter: str) -> None:
    """The error names the parameter to blame."""
    response = api_client.get(path)

    assert response.status_code == status
    assert response.json()["error"]["parameter"] == parameter
