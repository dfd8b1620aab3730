"""Attempts to break out of SQL, on a real server: each is refused or stopped with the reason, and harms nobody."""

from __future__ import annotations

import hashlib
import resource
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
import uvicorn
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from clew.collector.http_server import otlp_routes
from clew.collector.intake import Intake
from clew.query.app import build_app
from clew.storage import Base, QueryTimeout, QueryTooLarge, Selecting, SqlLimits, Store

RUN = "c1e" + "0" * 28 + "1"
SECONDS_MAX = 1.5
LET_GO_S = 60.0
# What the server's own code works on: a table that the engine could find by its name.
incoming = pa.table({"secret": ["of the server"]})


@dataclass
class Api:
    """A server over `store`, and clients of it."""

    client: httpx.Client
    store: Store
    folder: Path

    def ask(self, query: str, **more: Any) -> httpx.Response:
        return self.client.post("/api/sql", json={"query": query, **more})

    def refusal(self, query: str) -> str:
        """The reason why the query is not answered: the request's fault, not the server's."""
        response = self.ask(query)
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert (error["code"], error["parameter"]) == ("sql_refused", "query")
        return str(error["message"])

    def send_spans(self, run: int) -> httpx.Response:
        """Two thousand spans of one run."""
        request = ExportTraceServiceRequest()
        scope = request.resource_spans.add().scope_spans.add()
        for number in range(1, 2_001):
            span = scope.spans.add(trace_id=run.to_bytes(16), span_id=number.to_bytes(8), name="step")
            span.start_time_unix_nano, span.end_time_unix_nano = 10**18, 10**18 + number
            span.attributes.add(key="text").value.string_value = "x" * 200
        headers = {"content-type": "application/x-protobuf"}
        return self.client.post("/v1/traces", content=request.SerializeToString(), headers=headers)

    def contents(self) -> str:
        """A digest of every row of every table, and the names of all tables and views."""
        digest = hashlib.sha256()
        with self.store.engine.connect() as connection:
            for statement in (
                "SELECT database_name, schema_name, table_name FROM duckdb_tables() ORDER BY ALL",
                "SELECT view_name, sql FROM duckdb_views() WHERE NOT internal ORDER BY ALL",
                "SELECT sequence_name, last_value FROM duckdb_sequences() ORDER BY ALL",
                "SELECT name, value FROM duckdb_settings() WHERE scope = 'GLOBAL' ORDER BY ALL",
                *(f"SELECT * FROM {table} ORDER BY ALL" for table in sorted(Base.metadata.tables)),
            ):
                digest.update(repr(connection.execute(text(statement)).all()).encode())
        return digest.hexdigest()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("sandbox")
    store = Store.open(str(folder / "clew.duckdb"))
    registry = CollectorRegistry()
    intake = Intake(store, registry=registry)
    limits = SqlLimits(seconds_max=SECONDS_MAX, rows_max=1_000, bytes_max=1_000_000)
    app = build_app(store, registry=registry, routes=otlp_routes(intake), sql_limits=limits)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        served = Api(client, store, folder)
        assert served.send_spans(int(RUN, 16)).status_code == 200
        (folder / "secret.csv").write_text("secret\nof the machine\n")
        yield served
    server.should_exit = True
    thread.join()
    intake.close()
    store.close()


ONLY_SELECT = "only SELECT is answered"
NO_TABLE = "there is no table or view"
NOT_IN_FROM = "is not allowed in FROM"
ONLY_VALUES = "only functions that work on values"
UNBOUNDED = "a value of any size"

WRITES = {
    "DELETE FROM workflow_runs": ONLY_SELECT,
    "INSERT INTO sessions (id, created_at_unix_nano) VALUES ('mine', 1)": ONLY_SELECT,
    "UPDATE workflow_runs SET status = 'failed'": ONLY_SELECT,
    "MERGE INTO sessions USING (SELECT 'x' AS id) AS n ON n.id = sessions.id WHEN MATCHED THEN DELETE": ONLY_SELECT,
    "TRUNCATE sessions": ONLY_SELECT,
    "DROP TABLE execution_events": ONLY_SELECT,
    "DROP VIEW spans": ONLY_SELECT,
    "ALTER TABLE sessions ADD COLUMN mine TEXT": ONLY_SELECT,
    "CREATE TABLE mine AS SELECT 1": ONLY_SELECT,
    "CREATE TEMP TABLE mine AS SELECT 1": ONLY_SELECT,
    "CREATE VIEW mine AS SELECT 1": ONLY_SELECT,
    "CREATE OR REPLACE MACRO run_id_text(id) AS 'mine'": ONLY_SELECT,
    "CREATE INDEX mine ON sessions (name)": ONLY_SELECT,
    "CREATE TYPE mine AS ENUM ('a')": ONLY_SELECT,
    "WITH gone AS (DELETE FROM sessions RETURNING *) SELECT * FROM gone": ONLY_SELECT,
    "WITH new AS (INSERT INTO sessions (id, created_at_unix_nano) VALUES ('m', 1) RETURNING *) FROM new": ONLY_SELECT,
    "SELECT 1; DELETE FROM sessions": "these are 2 statements",
    "SELECT 1; SELECT 2": "these are 2 statements",
    "SELECT nextval('messages_id')": ONLY_VALUES,
    "SELECT setval('messages_id', 10)": ONLY_VALUES,
    "BEGIN": ONLY_SELECT,
    "COMMIT": ONLY_SELECT,
    "CHECKPOINT": ONLY_SELECT,
    "FROM force_checkpoint()": NOT_IN_FROM,
    "FROM checkpoint('clew')": NOT_IN_FROM,
    "VACUUM": ONLY_SELECT,
    "ANALYZE": ONLY_SELECT,
    "PREPARE mine AS DELETE FROM sessions": ONLY_SELECT,
    "EXECUTE mine": ONLY_SELECT,
    "EXPLAIN ANALYZE DELETE FROM sessions": ONLY_SELECT,
    "CALL query('DELETE FROM sessions')": ONLY_SELECT,
}
FILES = {
    "ATTACH '{folder}/other.duckdb' AS other": ONLY_SELECT,
    "DETACH clew": ONLY_SELECT,
    "COPY sessions TO '{folder}/stolen.csv'": ONLY_SELECT,
    "COPY (SELECT 1) TO '{folder}/stolen.parquet' (FORMAT parquet)": ONLY_SELECT,
    "COPY sessions FROM '{folder}/secret.csv'": ONLY_SELECT,
    "EXPORT DATABASE '{folder}/stolen'": ONLY_SELECT,
    "IMPORT DATABASE '{folder}/stolen'": ONLY_SELECT,
    "SELECT * FROM read_csv('{folder}/secret.csv')": NOT_IN_FROM,
    "SELECT * FROM READ_TEXT('{folder}/secret.csv')": NOT_IN_FROM,
    "SELECT * FROM \"read_blob\"('{folder}/clew.duckdb')": NOT_IN_FROM,
    "SELECT * FROM system.main.read_text('/etc/passwd')": NOT_IN_FROM,
    "SELECT * FROM read_json('{folder}/secret.csv')": NOT_IN_FROM,
    "SELECT * FROM read_parquet('{folder}/secret.csv')": NOT_IN_FROM,
    "SELECT * FROM parquet_metadata('{folder}/secret.csv')": NOT_IN_FROM,
    "SELECT * FROM sniff_csv('{folder}/secret.csv')": NOT_IN_FROM,
    "SELECT * FROM read_duckdb('{folder}/clew.duckdb')": NOT_IN_FROM,
    "SELECT * FROM glob('/*')": NOT_IN_FROM,
    "SELECT * FROM '{folder}/secret.csv'": NO_TABLE,
    "SELECT * FROM '/etc/passwd'": NO_TABLE,
    "SELECT * FROM 'https://example.com/x.csv'": NO_TABLE,
    "DESCRIBE '{folder}/secret.csv'": ONLY_SELECT,
    "SUMMARIZE '{folder}/secret.csv'": ONLY_SELECT,
    "SELECT (SELECT content FROM read_text('{folder}/secret.csv'))": NOT_IN_FROM,
    "SELECT 1 WHERE EXISTS (FROM '{folder}/secret.csv')": NO_TABLE,
    "SELECT * FROM spans, LATERAL (FROM read_text(spans.name))": NOT_IN_FROM,
    "SELECT '{folder}/secret.csv'.read_text()": ONLY_VALUES,
    "WITH \"{folder}/secret.csv\" AS (SELECT 1) FROM '{folder}/secret.csv'": NO_TABLE,
    "SELECT * FROM (WITH \"{folder}/secret.csv\" AS (SELECT 1) SELECT 1), '{folder}/secret.csv'": NO_TABLE,
    "FROM spans PIVOT (count(*) FOR name IN (FROM read_text('{folder}/secret.csv')))": "",
    "VALUES ((SELECT content FROM read_text('{folder}/secret.csv')))": NOT_IN_FROM,
    "SELECT 1 ORDER BY (SELECT content FROM read_text('{folder}/secret.csv'))": NOT_IN_FROM,
    "SELECT 1 LIMIT (SELECT count(*) FROM read_text('{folder}/secret.csv'))": NOT_IN_FROM,
    "SELECT list_transform([1], lambda x: (SELECT content FROM read_text('{folder}/secret.csv')))": NOT_IN_FROM,
    "SELECT sum(1) OVER (ORDER BY (FROM read_text('{folder}/secret.csv')))": NOT_IN_FROM,
    "SELECT * FROM query('DELETE FROM sessions')": NOT_IN_FROM,
    "SELECT * FROM query_table('{folder}/secret.csv')": NOT_IN_FROM,
    "SELECT json_execute_serialized_sql('{{}}')": ONLY_VALUES,
    "SELECT * FROM json_execute_serialized_sql('{{}}')": NOT_IN_FROM,
    "SELECT json_serialize_plan('SELECT * FROM read_text(''{folder}/secret.csv'')')": "reads SQL out of text",
    "INSTALL httpfs": ONLY_SELECT,
    "LOAD '{folder}/mine.duckdb_extension'": ONLY_SELECT,
}
SETTINGS = {
    "SET memory_limit = '100GB'": ONLY_SELECT,
    "SET GLOBAL threads = 1": ONLY_SELECT,
    "RESET memory_limit": ONLY_SELECT,
    "SET SESSION python_enable_replacements = true": ONLY_SELECT,
    "SET VARIABLE mine = 1": ONLY_SELECT,
    "PRAGMA database_list": ONLY_SELECT,
    "PRAGMA enable_profiling": ONLY_SELECT,
    "CALL enable_logging()": ONLY_SELECT,
    "FROM enable_logging()": NOT_IN_FROM,
    "FROM enable_profiling()": NOT_IN_FROM,
    "USE memory": ONLY_SELECT,
    "CREATE SECRET mine (TYPE s3)": ONLY_SELECT,
    "FROM duckdb_secrets()": NOT_IN_FROM,
    "FROM duckdb_settings()": NOT_IN_FROM,
    "FROM duckdb_databases()": NOT_IN_FROM,
    "FROM duckdb_logs": NO_TABLE,
    "FROM information_schema.tables": NO_TABLE,
    "FROM pg_catalog.pg_settings": NO_TABLE,
    "FROM sqlite_master": NO_TABLE,
    "FROM alembic_version": NO_TABLE,
    "FROM memory.main.spans": NO_TABLE,
    "SHOW TABLES": ONLY_SELECT,
    "SHOW DATABASES": ONLY_SELECT,
    "FROM (DESCRIBE spans)": ONLY_SELECT,
    "SELECT current_setting('temp_directory')": ONLY_VALUES,
    "SELECT getvariable('mine')": ONLY_VALUES,
    "SELECT getenv('HOME')": ONLY_VALUES,
    "SELECT current_query()": ONLY_VALUES,
    "SELECT write_log('mine')": ONLY_VALUES,
    "SELECT to_aggregate_state('x'::BLOB)": "the engine's own use",
}
VARIABLES = {
    "FROM incoming": NO_TABLE,
    "FROM pairs": NO_TABLE,
    "WITH incoming AS (FROM incoming) FROM incoming": NO_TABLE,
    "WITH RECURSIVE incoming AS (FROM incoming) FROM incoming": NO_TABLE,
    "SELECT * FROM (WITH incoming AS (SELECT 1) FROM incoming), incoming": NO_TABLE,
    "FROM python_arrow_scan(1, 2, 3)": NOT_IN_FROM,
    "FROM pandas_scan(140000000)": NOT_IN_FROM,
    "FROM arrow_scan(140000000, 1, 1)": NOT_IN_FROM,
    "FROM seq_scan(1)": NOT_IN_FROM,
}
DOUBLING = (
    "WITH a0 AS (FROM sessions), "
    + ", ".join(f"a{number + 1} AS (SELECT *, * FROM a{number})" for number in range(16))
    + " FROM a16"
)


def _nested(query: str) -> str:
    """The query, in which {inner} is itself, thirty times."""
    inner = "SELECT 'x' AS s"
    for _ in range(30):
        inner = query.replace("{inner}", inner)
    return inner


DOUBLING_FIELDS = (
    "SELECT {'a': s, 'b': s} AS s FROM ({inner})",
    "SELECT row(s, s) AS s FROM ({inner})",
    "SELECT [s, s] AS s FROM ({inner})",
    "SELECT map([s], [s]) AS s FROM ({inner})",
    "SELECT list_zip([s], [s]) AS s FROM ({inner})",
    "SELECT list_transform([s], lambda x: {'a': x, 'b': x}) AS s FROM ({inner})",
    "SELECT struct_insert({'a': s}, b := s) AS s FROM ({inner})",
    "SELECT CASE WHEN true THEN {'a': s, 'b': s} END AS s FROM ({inner})",
    "SELECT {'a': max(s), 'b': any_value(s)} AS s FROM ({inner}) QUALIFY true",
    "SELECT {'a': #1, 'b': #1} AS s FROM ({inner}) UNION ALL SELECT NULL",
    "SELECT (SELECT {'a': s, 'b': s}) AS s FROM ({inner})",
    "SELECT u.s FROM ({inner}) t, (SELECT {'a': t.s, 'b': t.s} AS s) u",
    "SELECT {'a': s, 'b': s} AS s FROM (VALUES (({inner}))) v(s)",
    "SELECT t AS s, t AS u FROM ({inner}) AS t",
)
DOUBLING_BY_NAME = "SELECT {'a': 1} AS a0, " + ", ".join(f"[a{n}, a{n}] AS a{n + 1}" for n in range(30))
EXHAUSTING = {
    **dict.fromkeys(map(_nested, DOUBLING_FIELDS), "more than 10,000 "),  # fields, or columns of those
    DOUBLING_BY_NAME: "more than 10,000 fields",
    "SELECT repeat('x', 1000000000)": UNBOUNDED,
    "SELECT 'x'.repeat(1000000000)": UNBOUNDED,
    "SELECT len(range(1000000000))": UNBOUNDED,
    "SELECT unnest(generate_series(1, 1000000000))": UNBOUNDED,
    "SELECT list_resize([1], 1000000000)": UNBOUNDED,
    "SELECT list_reduce(['x'], lambda a, b: a || a)": UNBOUNDED,
    "SELECT lpad('x', 1000000000, 'x')": "of at most 1000",
    "SELECT rpad('x', range, 'x') FROM range(10)": "of at most 1000",
    "SELECT printf('%1000000000d', 1)": "plain text as its format",
    "SELECT format('{{:1000000000}}', 1)": "plain text as its format",
    "SELECT length(bitstring('1', 2000000000)) FROM range(100)": "of at most 1000",
    "SELECT list_aggregate(l, 'reservoir_quantile', 0.5, 40000000) FROM (SELECT [range] l FROM range(100))": UNBOUNDED,
    "SELECT [1].list_aggr('Reservoir_Quantile', 0.5, 40000000)": UNBOUNDED,
    "SELECT aggregate([1], 'reservoir_' || 'quantile', 0.5, 40000000)": "named in plain text",
    "SELECT array_aggregate([1], name) FROM spans": "named in plain text",
    "SELECT levenshtein(name, name) FROM spans": "cannot be stopped",
    "SELECT '[1]'::JSON::VARIANT": "nothing is cast to VARIANT",
    "SELECT CAST([name] AS Variant[]) FROM spans": "nothing is cast to VARIANT",
    "SELECT {{'a': 1}}::STRUCT(a VARIANT)": "nothing is cast to VARIANT",
    "SELECT json_structure(name) FROM spans": "nested deeply",
    "SELECT json_contains(name, name) FROM spans": "nested deeply",
    "SELECT json_transform('[]', name) FROM spans": "nested deeply",
    "SELECT from_json_strict('[]', chr(91) || '\"INT\"' || chr(93))": "nested deeply",
    "SELECT a" + ".a" * 20_000: "has 50 parts at most",
    DOUBLING: "more than 10,000 columns",
    f"SELECT * FROM spans WHERE name IN ({DOUBLING})": "more than 10,000 columns",
    f"FROM range((SELECT count(*) FROM ({DOUBLING})))": "more than 10,000 columns",
    "SELECT 1 UNION ALL FROM " + "(SELECT *, *, * FROM " * 12 + "spans" + ")" * 12: "more than 10,000 columns",
    "SELECT sleep_ms(100000)": ONLY_VALUES,
    "SELECT pg_sleep(100)": ONLY_VALUES,
    "SELECT main.pg_sleep(100)": ONLY_VALUES,
    "UPDATE EXTENSIONS": "only SELECT is answered",
    "": "these are 0 statements",
    "-- nothing": "these are 0 statements",
    "SELECT": "Parser Error",
    "\0": "zero byte",
    "SELECT " + "(" * 50_000 + "1" + ")" * 50_000: "longer than 64 KiB",
    "SELECT " + "(" * 20_000: "more than 500 brackets",
    "SELECT " + "(" * 5_000 + "1" + ")" * 5_000: "more than 500 brackets",
    "SELECT " + "- " * 20_000 + "1": "more than 500 brackets",
    "SELECT " + "[" * 5_000: "more than 500 brackets",
    "SELECT " + "NOT " * 10_000 + "true": "depth",
    "SELECT " + "1 + " * 10_000 + "1": "depth",
    "SELECT 1" + " UNION ALL SELECT 1" * 10_000: "longer than 64 KiB",
    "SELECT '" + "x" * 70_000 + "'": "longer than 64 KiB",
}
ATTEMPTS = {**WRITES, **FILES, **SETTINGS, **VARIABLES, **EXHAUSTING}


@pytest.mark.parametrize(
    "parameters",
    [["x" * 70_000], {"a": ["é" * 40_000]}, [{"b": "x" * 70_000}], [{"k" * 70_000: 1}]],
    ids=["list", "object", "within", "key"],
)
def test_long_texts_are_no_parameters(api: Api, parameters: Any) -> None:
    """The engine could search in them for longer than a query may take, and not be stopped."""
    response = api.client.post("/api/sql", json={"query": "SELECT 1", "parameters": parameters})
    assert response.status_code == 400
    assert response.json()["error"]["parameter"] == "parameters"
    assert response.json()["error"]["message"].startswith("parameters: a text is longer than 64 KiB")


def test_sets_of_many_parts_have_the_columns_of_one(api: Api) -> None:
    """However often they are put together."""
    doubled = ", ".join(f"a{n} AS NOT MATERIALIZED (FROM a{n - 1} UNION ALL FROM a{n - 1})" for n in range(1, 11))
    answer = api.ask(f"WITH a0 AS (SELECT 1 AS x), {doubled} SELECT count(*) FROM a10")
    assert (answer.status_code, answer.json().get("rows")) == (200, [[1024]])


@pytest.mark.parametrize(
    "query", ["SELECT ({inner})", "SELECT 'y' WHERE 'x' IN ({inner})", "FROM (VALUES (({inner}))) v(s)"]
)
def test_queries_in_queries_are_judged_once_each(api: Api, query: str) -> None:
    """Thirty within one another: looked at twice on each level, that would be a billion."""
    answer = api.ask(_nested(query))
    assert answer.status_code == 200, answer.text


def test_values_in_values_are_answered_where_they_are_few(api: Api) -> None:
    """A chain of queries that each add to the one before, as analyses have, and lists of objects of lists."""
    steps = ", ".join(
        f"a{n} AS (SELECT *, concat(name, kind, status_message) AS k{n} FROM a{n - 1})" for n in range(1, 13)
    )
    answer = api.ask(f"WITH a0 AS (SELECT * FROM spans), {steps} SELECT count(*) FROM a12")
    assert answer.status_code == 200, answer.text
    lists = "SELECT name, list({'k': kind, 'm': status_message}) AS l FROM spans GROUP BY 1"
    answer = api.ask(f"SELECT list({{'n': name, 'of': l}}) FROM ({lists})")
    assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def before(api: Api) -> str:
    return api.contents()


@pytest.mark.parametrize(("query", "reason"), ATTEMPTS.items(), ids=[query[:60] for query in ATTEMPTS])
def test_it_is_refused(api: Api, before: str, query: str, reason: str) -> None:
    """With the reason; and what is no SELECT over clew's tables never reaches the engine."""
    assert reason in api.refusal(query.replace("{{", "{").replace("}}", "}").replace("{folder}", str(api.folder)))


def test_nothing_has_changed(api: Api, before: str) -> None:
    """After every attempt: the same tables, rows, views, sequences and settings, and no file more."""
    for query in ATTEMPTS:
        api.ask(query.replace("{{", "{").replace("}}", "}").replace("{folder}", str(api.folder)))
    assert api.contents() == before
    assert {path.name for path in api.folder.iterdir()} <= {"clew.duckdb", "clew.duckdb.wal", "secret.csv"}


def test_the_engine_refuses_too(api: Api) -> None:
    """Were a query not looked at, the connection would still neither write nor find Python's variables."""
    with Selecting(api.store.engine, api.store.damage)._connection() as connection:
        connection.execute("BEGIN TRANSACTION READ ONLY")
        for query in ("FROM incoming", "SELECT nextval('messages_id')", "DELETE FROM sessions"):
            with pytest.raises(Exception, match=r"does not exist|read-only|aborted"):
                connection.execute(query)


ENDLESS = [
    "SELECT count(*) FROM range(1000000000000)",
    "WITH RECURSIVE n AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n",
    "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b",
    "SELECT max(hash(a.span_id || b.span_id || c.span_id)) FROM spans a, spans b, spans c",
]
BOMBS = [
    "SELECT list(range) FROM range(1000000000)",
    "SELECT string_agg(range::text) FROM range(1000000000)",
    "WITH RECURSIVE t(s) AS (SELECT 'xxxxxxxxxx' UNION ALL SELECT s || s FROM t) SELECT max(length(s)) FROM t",
    "SELECT max(length(replace(s, '1', s))) FROM (SELECT string_agg(range::text, '') s FROM range(20000))",
    "SELECT max(len(flatten(list_transform(l, lambda x: l)))) FROM (SELECT list(range) l FROM range(30000))",
    """WITH a AS (SELECT string_agg(range::text, '') s FROM range(100000)),
            b AS (SELECT s||s||s||s||s||s||s||s s FROM a), c AS (SELECT s||s||s||s||s||s||s||s s FROM b)
       SELECT max(length(s || range)) FROM c, range(100000)""",
    "SELECT * FROM range(1000000000) ORDER BY hash(range)",
]


@pytest.mark.parametrize("query", ENDLESS)
def test_what_never_ends_is_stopped(api: Api, query: str) -> None:
    """At the time limit, which the answer tells."""
    response = api.ask(query)
    assert response.status_code == 504, response.text
    assert f"stopped after {SECONDS_MAX} s" in response.json()["error"]["message"]


AFTER_FIRST_ROWS = [
    ("SELECT range FROM range(1000000000000) WHERE range < 3000", SECONDS_MAX, QueryTimeout, r"stopped after 1\.5 s"),
    (
        """SELECT CASE WHEN range > 3000 THEN replace(s, '1', s) END
           FROM range(10000), (SELECT string_agg(range::text, '') s FROM range(20000))""",
        LET_GO_S,
        QueryTooLarge,
        "want of memory",
    ),
]


@pytest.mark.parametrize(("query", "seconds_max", "error", "told"), AFTER_FIRST_ROWS)
def test_limits_hold_after_the_first_rows(
    api: Api, query: str, seconds_max: float, error: type[Exception], told: str
) -> None:
    """What stops it then is told like what stops it before them."""
    selecting = Selecting(api.store.engine, api.store.damage)
    with pytest.raises(error, match=told):
        selecting.select(query, (), SqlLimits(seconds_max), lambda _kind: "{}", threading.Event())


@pytest.mark.parametrize("query", BOMBS)
def test_a_memory_bomb_harms_itself_alone(api: Api, query: str) -> None:
    """It is stopped, by memory or by time; the process lives, and when the engine has let go the next is answered."""
    usual = resource.getrlimit(resource.RLIMIT_DATA)
    response = api.ask(query)
    assert response.status_code in (422, 504), response.text
    until = time.monotonic() + LET_GO_S
    while resource.getrlimit(resource.RLIMIT_DATA) != usual and time.monotonic() < until:
        time.sleep(0.05)
    assert resource.getrlimit(resource.RLIMIT_DATA) == usual
    after = api.ask("SELECT count(*) FROM spans")
    assert after.status_code == 200, after.text


def test_others_are_answered_meanwhile(api: Api) -> None:
    """While as many endless queries run as may, runs are listed and spans are stored."""
    with ThreadPoolExecutor(4) as threads:
        endless = [threads.submit(api.ask, query) for query in ENDLESS]
        while not any(future.done() for future in endless):
            assert api.client.get("/api/runs").status_code == 200
        assert {future.result().status_code for future in endless} == {504}


def test_spans_are_stored_while_memory_is_short(api: Api) -> None:
    """Queries that take all the engine's memory do not make a single request of spans fail."""
    hungry = "SELECT count(*) FROM (SELECT DISTINCT hash(range), range::text || 'x' FROM range(1000000000))"
    with ThreadPoolExecutor(2) as threads:
        hungry_ones = [threads.submit(api.ask, hungry) for _ in range(4)]
        statuses = []
        while not all(future.done() for future in hungry_ones):
            statuses.append(api.send_spans(1_000 + len(statuses)).status_code)
        assert {future.result().status_code for future in hungry_ones} <= {422, 504}
    assert set(statuses) == {200}


def test_too_many_queries_are_told_to_come_again(api: Api) -> None:
    """Past what may wait, 503 with Retry-After, at once; the others get their turn."""
    query = ENDLESS[0]
    with ThreadPoolExecutor(24) as threads:
        responses = list(threads.map(api.ask, [query] * 24))
    refused = [response for response in responses if response.status_code == 503]
    assert refused
    assert all(response.headers["retry-after"] for response in refused)
    assert api.ask("SELECT 1").json()["rows"] == [[1]]


def test_another_page_cannot_ask_unasked(api: Api) -> None:
    """A form of another origin sends no JSON; what is not sent as JSON is not read."""
    response = api.client.post("/api/sql", content=b'{"query": "SELECT 1"}', headers={"content-type": "text/plain"})
    assert response.status_code == 400
    assert "application/json" in response.json()["error"]["message"]


def test_a_huge_question_is_not_read(api: Api) -> None:
    """A body beyond a mebibyte is refused."""
    response = api.ask("SELECT ?", parameters=["x" * 2_000_000])
    assert response.status_code == 400
    assert "larger than" in response.json()["error"]["message"]


def test_an_answer_is_cut_at_its_bytes(api: Api) -> None:
    """Few rows may be much: the answer says that it is truncated."""
    wide = "SELECT l || n::text FROM (SELECT string_agg(range::text) l FROM range(20000)), range(900) r(n)"
    answer = api.ask(wide).json()
    assert answer["truncated"]
    assert 1 <= len(answer["rows"]) < 20
