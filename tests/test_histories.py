"""The history that every model call repeats is stored once, and comes back as it was sent."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData
from sqlalchemy import func, select
from sqlalchemy.orm.exc import DetachedInstanceError

from clew.collector.projection import read_requests
from clew.exporter.otlp import run_as_otlp
from clew.query.filter import parse
from clew.query.filter_sql import of_events
from clew.storage import (
    DatabaseSession,
    EventRepository,
    ExecutionEvent,
    HistoryPart,
    Session,
    StorageError,
    Store,
    WorkflowRepository,
    get_db_session,
    migrate,
)
from clew.storage.database import close_database
from clew.storage.engine import open_engine

from .any_otlp import text_of

RUN, OTHER_RUN = UUID(int=7), UUID(int=8)
WORDS = [f"word{number}" for number in range(1000)]
MESSAGE_WORDS = 100

Said = list[dict[str, Any]]
Attributes = dict[str, AnyValue]


def text(value: str) -> AnyValue:
    return AnyValue(string_value=value)


def messages(count: int, *, seed: int = 1) -> Said:
    """So many messages, of user and assistant in turn; more of them begin with the same."""
    chance = random.Random(seed)
    return [
        {
            "role": ("user", "assistant")[number % 2],
            "parts": [{"type": "text", "content": " ".join(chance.choices(WORDS, k=MESSAGE_WORDS))}],
        }
        for number in range(count)
    ]


def contents(said: Said) -> list[str]:
    return [message["parts"][0]["content"] for message in said]


def as_json(said: Said) -> Attributes:
    """OTel GenAI: all that was said before, and the answer."""
    return {"gen_ai.input.messages": text(json.dumps(said[:-1])), "gen_ai.output.messages": text(json.dumps(said[-1:]))}


def as_members(said: Said) -> Attributes:
    """OpenInference: an attribute for each member of each message."""
    flat = {}
    for number, (message, content) in enumerate(zip(said, contents(said), strict=True)):
        flat[f"llm.input_messages.{number}.message.role"] = text(message["role"])
        flat[f"llm.input_messages.{number}.message.content"] = text(content)
    return flat


def as_prompt(said: Said) -> Attributes:
    """One text, a line for each message."""
    return {"gen_ai.prompt": text("\n".join(contents(said)))}


def as_structure(said: Said) -> Attributes:
    """OTel GenAI without JSON text."""
    maps = [
        KeyValueList(values=[KeyValue(key="role", value=text(m["role"])), KeyValue(key="content", value=text(c))])
        for m, c in zip(said, contents(said), strict=True)
    ]
    return {"gen_ai.input.messages": AnyValue(array_value=ArrayValue(values=[AnyValue(kvlist_value=m) for m in maps]))}


FORMS = [as_json, as_members, as_prompt, as_structure]


def call(turn: int, attributes: Attributes, *, run: UUID = RUN, session: str = "s", end: int = 1) -> Span:
    """The call to a model in this turn."""
    said = {"session.id": text(session), "gen_ai.operation.name": text("chat"), **attributes}
    return Span(
        trace_id=run.bytes,
        span_id=(turn + 1).to_bytes(8, "big"),
        name="chat",
        start_time_unix_nano=turn + 1,
        end_time_unix_nano=end and turn + end + 1,
        attributes=[KeyValue(key=key, value=value) for key, value in said.items()],
    )


def conversation(turns: int, form: Callable[[Said], Attributes] = as_json, **of_call: Any) -> list[Span]:
    said = messages(2 * turns)
    return [call(turn, form(said[: 2 * turn + 2]), **of_call) for turn in range(turns)]


def send(store: Store, *spans: Span) -> None:
    """Each by itself, as a live conversation comes."""
    for span in spans:
        request = ExportTraceServiceRequest()
        request.resource_spans.add().scope_spans.add().spans.append(span)
        batch = read_requests([request.SerializeToString()]).batch
        assert batch is not None
        store.write(batch)


def stored(store: Store, run: UUID = RUN) -> dict[bytes, Any]:
    """The attributes of each span of the run, by span id."""
    traces = TracesData.FromString(run_as_otlp(store, run) or b"")
    spans = [span for block in traces.resource_spans for scope in block.scope_spans for span in scope.spans]
    return {span.span_id: attributes_of(span) for span in spans}


def attributes_of(span: Span) -> str:
    return text_of(Span(attributes=span.attributes))


def sent(*spans: Span) -> dict[bytes, Any]:
    return {span.span_id: attributes_of(span) for span in spans}


def parts(store: Store) -> list[HistoryPart]:
    with DatabaseSession(store.engine) as session:
        return list(session.scalars(select(HistoryPart)))


def texts(store: Store) -> list[str]:
    return [part.text for part in parts(store) if part.text is not None]


def bytes_stored(store: Store) -> int:
    """Of texts, and of the references to parts."""
    return sum(len(part.text or "") + 16 * len(part.parts or ()) for part in parts(store))


# --- as it was sent ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("together", [True, False])
def test_every_call_comes_back_as_it_was_sent(store: Store, form: Callable[[Said], Attributes], together: bool) -> None:
    """Whatever convention tells the conversation, and whether its calls come one by one or at once."""
    spans = conversation(8, form)
    if together:
        request = ExportTraceServiceRequest()
        request.resource_spans.add().scope_spans.add().spans.extend(spans)
        batch = read_requests([request.SerializeToString()]).batch
        assert batch is not None
        store.write(batch)
    else:
        send(store, *spans)
    assert parts(store)
    assert stored(store) == sent(*spans)


def test_what_is_hard_to_cut_comes_back(store: Store) -> None:
    """Text without a place to cut, of such places only, of wide characters, with quotes and NULs, of repetition."""
    hard = ["x" * 5000, "}" * 5000, "\U00013000" * 3000, '"\\\0\n' * 2000, "{}" * 4000, "same line\n" * 2000]
    spans = [call(turn, {"input.value": text(value), "x": text("y")}) for turn, value in enumerate(hard)]
    send(store, *spans)
    assert stored(store) == sent(*spans)


@pytest.mark.parametrize("form", FORMS)
def test_answers_show_whole_attributes(
    store: Store, api_client: httpx.Client, form: Callable[[Said], Attributes]
) -> None:
    """The tree, pages of events and a single event show them as if they were stored with the event."""
    spans = conversation(4, form)
    send(store, *spans)
    short = call(9, {"x": text("y")})
    send(store, short)
    tree = api_client.get(f"/api/runs/{RUN.hex}/tree", params={"shape": "flat"}).json()["events"]
    page = api_client.get(f"/api/runs/{RUN.hex}/events").json()["events"]
    one_by_one = [api_client.get(f"/api/runs/{RUN.hex}/events/{event['id']}").json() for event in tree]
    expected = [_as_json(span) for span in (*spans, short)]
    for events in (tree, page, one_by_one):
        assert [event["attributes"] for event in events] == expected


def _as_json(span: Span) -> dict[str, Any]:
    return {pair.key: _plain(pair.value) for pair in span.attributes}


def _plain(value: AnyValue) -> Any:
    if value.HasField("array_value"):
        return [_plain(item) for item in value.array_value.values]
    if value.HasField("kvlist_value"):
        return {pair.key: _plain(pair.value) for pair in value.kvlist_value.values}
    return value.string_value


def test_short_attributes_stay_with_the_event(store: Store) -> None:
    """What is not worth a reference is where SQL finds it."""
    send(store, call(0, {"gen_ai.input.messages": text("[]"), "other": text("x" * 10_000)}))
    assert parts(store) == []


@pytest.mark.parametrize("form", FORMS)
def test_sql_reads_histories(store: Store, form: Callable[[Said], Attributes]) -> None:
    """`history_text` gives the attributes that the column lacks, as a JSON object; NULL where it has all."""
    spans = conversation(4, form)
    send(store, *spans, call(9, {"x": text("y")}))
    with store.engine.connect() as connection:
        asked = "SELECT attributes, history_text(history_id) FROM execution_events ORDER BY id"
        rows = connection.exec_driver_sql(asked).all()
    told = [attributes | json.loads(history or "{}") for attributes, history in rows]
    assert told == [_as_json(span) for span in (*spans, call(9, {"x": text("y")}))]
    assert rows[-1][1] is None


def test_sql_over_http_may_read_histories(store: Store, api_client: httpx.Client) -> None:
    """The function is among those that SQL from outside may use."""
    [*_, last] = conversation(3)
    send(store, *conversation(3))
    query = "SELECT history_text(history_id) AS history FROM execution_events ORDER BY id DESC LIMIT 1"
    answer = api_client.post("/api/sql", json={"query": query})
    assert answer.status_code == 200, answer.text
    [[history]] = answer.json()["rows"]
    assert json.loads(history).items() <= _as_json(last).items()
    assert "gen_ai.input.messages" in json.loads(history)


def test_filters_find_histories(store: Store) -> None:
    """An attribute is found by what it says, whether it is kept with the event or as history."""
    send(store, *conversation(4), call(9, {"gen_ai.input.messages": text("[]")}), call(10, {"x": text("y")}))
    last = contents(messages(7))[-1]
    found = {
        asked: _found(store, asked)
        for asked in (
            "attributes['gen_ai.input.messages'] exists",
            "not attributes['gen_ai.input.messages'] exists",
            f"attributes['gen_ai.input.messages'] =~ '.*{last}.*'",
            "attributes['gen_ai.input.messages'] = '[]'",
            "attributes['gen_ai.input.messages'] != '[]'",
        )
    }
    assert list(found.values()) == [[1, 2, 3, 4, 10], [11], [4], [10], [1, 2, 3, 4, 11]]


def test_words_find_what_is_kept_apart(store: Store) -> None:
    """By the first to say it where it is a message; else wherever it is, however the text is cut, keys included."""
    page = json.dumps({"url": "https://Example.org", "pages": [{"n": n, "said": f"page {n}\n"} for n in range(99)]})
    told = {"clew.event.type": text("tool_call"), "clew.inputs": text(page)}
    send(store, *conversation(4), call(9, told), call(10, told | {"clew.inputs": text(page.replace("98", "Zebra"))}))
    first = contents(messages(7))[0]
    for asked, found in (
        (first, [1]),
        ("zebra", [11]),
        ("example.ORG", [10, 11]),
        ("clew.inputs", [10, 11]),
        ('"page 97\\n"}, {"n": 98', [10]),
        ('page 97\\n"}, {"n": 97', []),
    ):
        assert _found(store, json.dumps(asked)) == found, asked


def _found(store: Store, asked: str) -> list[int]:
    with store.read() as reader:
        rows = reader.rows(select(ExecutionEvent.id).where(of_events(parse(asked))).order_by(ExecutionEvent.id))
    return [int(row["id"], 16) for row in rows]


# --- once -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_message_is_stored_once(store: Store, form: Callable[[Said], Attributes]) -> None:
    """Each of them stands in a single part, though all later calls repeat it."""
    turns = 12
    send(store, *conversation(turns, form))
    whole = "\n".join(texts(store))
    assert {content: whole.count(content) for content in contents(messages(2 * turns))} == dict.fromkeys(
        contents(messages(2 * turns)), 1
    )


def test_turns_cost_what_is_new_in_them(tmp_path: Path) -> None:
    """A hundred turns take twice the bytes of fifty: what was said, and less than 1,000 bytes a turn beside it."""
    sizes = {}
    for turns in (50, 100):
        store = Store.open(str(tmp_path / f"{turns}.duckdb"))
        send(store, *conversation(turns))
        sizes[turns] = bytes_stored(store)
        store.close()
        said = sum(map(len, contents(messages(2 * turns))))
        assert said < sizes[turns] < said + 1000 * turns
    assert sizes[100] < 2.1 * sizes[50]


def test_a_window_that_slides_repeats_nothing(store: Store) -> None:
    """Where old messages are dropped and the beginning tells the time, only that beginning is new."""
    said = messages(40)
    windows = [said[start : start + 20] for start in range(20)]
    spans = [
        call(
            turn, {"input.value": text(json.dumps([{"role": "system", "content": f"It is {turn} o'clock."}, *window]))}
        )
        for turn, window in enumerate(windows)
    ]
    send(store, *spans)
    whole = "\n".join(texts(store))
    assert [whole.count(content) for content in contents(said[:39])] == [1] * 39
    assert stored(store) == sent(*spans)


def test_turns_of_other_runs_of_the_session_repeat_nothing(store: Store) -> None:
    """A session's turns are often a run each."""
    said = messages(20)
    spans = [call(turn, as_json(said[: 2 * turn + 2]), run=UUID(int=turn + 1)) for turn in range(10)]
    send(store, *spans)
    whole = "\n".join(texts(store))
    assert [whole.count(content) for content in contents(said)] == [1] * 20


def test_sessions_share_nothing(store: Store) -> None:
    """What two of them say alike, each has by itself; so has each run that names no session."""
    of_session = [*conversation(3, session="a"), *conversation(3, run=OTHER_RUN, session="b")]
    of_run = [*conversation(3, run=UUID(int=9), session=""), *conversation(3, run=UUID(int=10), session="")]
    send(store, *of_session, *of_run)
    owners = [part.session_id for part in parts(store) if part.text]
    assert sorted(set(owners)) == sorted(["a", "b", UUID(int=9).hex, UUID(int=10).hex])
    assert len({owners.count(owner) for owner in owners}) == 1


def test_sent_again_to_another_process_nothing_is_new(tmp_path: Path) -> None:
    """After a restart too."""
    path = str(tmp_path / "clew.duckdb")
    found = []
    for _ in range(2):
        store = Store.open(path)
        send(store, *conversation(5))
        found.append(sorted(part.id for part in parts(store)))
        assert stored(store) == sent(*conversation(5))
        store.close()
    assert found[0] == found[1]


def test_a_finished_call_takes_the_place_of_its_pending_copy(store: Store) -> None:
    """With the history that it tells itself."""
    said = messages(8)
    send(store, call(0, as_json(said[:4]), end=0))
    finished = call(0, as_json(said), end=5)
    send(store, finished)
    assert stored(store) == sent(finished)


# --- deleting ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def shared_history(tmp_path: Path) -> str:
    """A file with a conversation of ten turns in one run, and its first six turns in another run of the session."""
    path = str(tmp_path / "clew.duckdb")
    store = Store.open(path)
    send(store, *conversation(10), *conversation(6, run=OTHER_RUN))
    store.close()
    return path


@pytest.mark.parametrize(("gone", "stays", "turns"), [(RUN, OTHER_RUN, 6), (OTHER_RUN, RUN, 10)])
def test_a_run_takes_what_only_it_needed(shared_history: str, gone: UUID, stays: UUID, turns: int) -> None:
    """The other run of the session keeps its history, and no part is left that it does not need."""
    with get_db_session(shared_history) as session:
        assert WorkflowRepository(session, "s").delete_run(gone.hex)
    close_database(shared_history)
    store = Store.open(shared_history)
    assert stored(store, stays) == sent(*conversation(turns))
    left = sorted(part.id for part in parts(store))
    store.close()
    assert left == _parts_of(conversation(turns), Path(shared_history).with_name("only.duckdb"))


def _parts_of(spans: list[Span], path: Path) -> list[str]:
    """The parts of a database that holds nothing else."""
    store = Store.open(str(path))
    send(store, *spans)
    found = sorted(part.id for part in parts(store))
    store.close()
    return found


def test_the_last_event_takes_the_last_part(shared_history: str) -> None:
    """A session that goes leaves nothing; nor do its events, one after the other."""
    with get_db_session(shared_history) as session:
        for event in session.query(ExecutionEvent).where(ExecutionEvent.run_id == OTHER_RUN.hex):
            session.delete(event)
        session.commit()
        assert session.query(HistoryPart).count() > 0
        session.delete(session.get_one(Session, "s"))
        session.commit()
        assert session.query(HistoryPart).count() == 0
    close_database(shared_history)


def test_other_sessions_are_not_swept(tmp_path: Path) -> None:
    """Deleting in one session leaves the parts of others."""
    path = str(tmp_path / "clew.duckdb")
    store = Store.open(path)
    send(store, *conversation(3, session="a"), *conversation(3, run=OTHER_RUN, session="b"))
    store.close()
    with get_db_session(path) as session:
        assert WorkflowRepository(session, "a").delete_run(RUN.hex)
        assert set(session.scalars(select(HistoryPart.session_id))) == {"b"}
    close_database(path)


# --- applications that open the file ----------------------------------------------------------------------------------


def test_events_read_by_the_orm_have_whole_attributes(shared_history: str) -> None:
    """Read while the session is open; afterwards the error says so."""
    [*_, last] = conversation(10)
    with get_db_session(shared_history) as session:
        event = session.get_one(ExecutionEvent, (RUN.hex, last.span_id.hex()))
        assert event.attributes == _as_json(last)
        assert event.meta == _as_json(last)
    with pytest.raises(DetachedInstanceError, match="before closing"):
        assert event.attributes
    close_database(shared_history)


def test_a_changed_event_keeps_its_history(shared_history: str) -> None:
    """An update writes the attributes whole."""
    [*_, last] = conversation(10)
    with get_db_session(shared_history) as session:
        changed = EventRepository(session, "s").update_event(last.span_id.hex(), RUN.hex, outputs={"answer": 42})
        assert changed is not None
        assert changed.attributes.items() >= _as_json(last).items()
        assert changed.history_id is None
    close_database(shared_history)


# --- limits and accidents ---------------------------------------------------------------------------------------------


def test_the_way_down_puts_histories_back(shared_history: str) -> None:
    """The older revision has the attributes whole, and the way up leaves them so."""
    engine = open_engine(Path(shared_history))
    migrate.downgrade(engine, "0004")
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT run_id, id, attributes FROM execution_events").all()
    whole = {(run, number): attributes for run, number, attributes in rows}
    expected = {(RUN, turn + 1): _as_json(span) for turn, span in enumerate(conversation(10))}
    expected |= {(OTHER_RUN, turn + 1): _as_json(span) for turn, span in enumerate(conversation(6))}
    assert whole == expected
    migrate.upgrade(engine)
    engine.dispose()
    store = Store.open(shared_history)
    assert stored(store) == sent(*conversation(10))
    store.close()


def test_more_than_an_answer_may_hold_is_refused(store: Store, api_client: httpx.Client) -> None:
    """A history that is small while stored is not put together beyond the limit."""
    send(store, *conversation(3))
    with DatabaseSession(store.engine) as session:
        large, small = "f" * 32, "e" * 32
        session.add(HistoryPart(id=small, session_id="s", text="x" * (1 << 20)))
        session.add(HistoryPart(id=large, session_id="s", parts=[small] * 600))
        session.flush()
        session.get_one(ExecutionEvent, (RUN.hex, f"{2:016x}")).history_id = large
        session.commit()
    answer = api_client.get(f"/api/runs/{RUN.hex}/tree")
    assert (answer.status_code, "histories" in answer.text) == (422, True), answer.text
    assert api_client.get(f"/api/runs/{RUN.hex}/events/{1:016x}").status_code == 200


def test_a_missing_part_is_an_error(store: Store) -> None:
    """Never a shorter history."""
    send(store, *conversation(3))
    with DatabaseSession(store.engine) as session:
        longest = session.scalars(select(HistoryPart).order_by(func.length(HistoryPart.text).desc()).limit(1)).one()
        session.delete(longest)
        session.commit()
    with pytest.raises(StorageError, match="lacks a part"):
        run_as_otlp(store, RUN)
