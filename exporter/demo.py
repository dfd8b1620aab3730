"""A run of three agents, recorded as an application would record it: by the OpenTelemetry SDK, over OTLP/gRPC.

The work is made up, its shape is not: a planner has its plan approved, a researcher retries a query that timed out, an
engineer repairs code that failed, files are written, and each hands over to the next. Durations and content are the
same every time; ids are the SDK's own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode, Tracer, set_span_in_context

_MS = 1_000_000
_SERVICE = {"service.name": "churn-brief", "service.version": "1.4.0", "deployment.environment.name": "demo"}

Attributes = Mapping[str, str | int | float]
_When = tuple[int, int]  # at_ms, duration_ms


class NotRecorded(Exception):
    """The demo's spans did not arrive; the message says why as far as it can be known."""


@dataclass(frozen=True)
class Log:
    """A moment inside a step, `at_ms` after its start."""

    name: str
    at_ms: int
    attributes: Attributes


@dataclass(frozen=True)
class Step:
    """One span. `at_ms` counts from the start of the step around it. A step that `retries` links to the failed step of
    its name before it."""

    name: str
    at_ms: int
    duration_ms: int
    attributes: Attributes
    kind: SpanKind = SpanKind.INTERNAL
    steps: Sequence[Step] = ()
    logs: Sequence[Log] = ()
    failure: Exception | None = None
    retries: bool = False


def record(target: str) -> str:
    """Sends the run to the OTLP/gRPC server at `target` (host:port, no TLS) as one that has just ended.

    Returns its run id once every span is answered. Raises NotRecorded.
    """
    exporter = OTLPSpanExporter(
        endpoint=f"http://{target}",
        insecure=True,
        channel_options=(("grpc.enable_http_proxy", 0),),  # type: ignore[arg-type]  # annotated as text, gRPC takes an int
    )
    provider = TracerProvider(sampler=ALWAYS_ON, resource=Resource.create(_SERVICE), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    recording = _Recording(provider.get_tracer("clew.demo"))
    root = recording.step(CHURN_BRIEF, time.time_ns() - CHURN_BRIEF.duration_ms * _MS)
    arrived = provider.force_flush()
    provider.shutdown()
    if not root.is_valid:
        raise NotRecorded("the OpenTelemetry SDK is switched off; unset OTEL_SDK_DISABLED")
    if not arrived:
        raise NotRecorded(f"{target} did not take the demo's spans")
    return f"{root.trace_id:032x}"


@dataclass
class _Recording:
    tracer: Tracer
    failed: dict[str, SpanContext] = field(default_factory=dict)

    def step(self, step: Step, started_ns: int, parent: Span | None = None) -> SpanContext:
        span = self.tracer.start_span(
            step.name,
            context=set_span_in_context(parent) if parent else None,
            kind=step.kind,
            attributes=dict(step.attributes),
            links=[Link(self.failed[step.name], {"clew.link.type": "caused_by"})] if step.retries else [],
            start_time=started_ns,
        )
        for inner in step.steps:
            self.step(inner, started_ns + inner.at_ms * _MS, span)
        for log in step.logs:
            span.add_event(log.name, dict(log.attributes), timestamp=started_ns + log.at_ms * _MS)
        ended_ns = started_ns + step.duration_ms * _MS
        if step.failure:
            span.record_exception(step.failure, timestamp=ended_ns)
            span.set_status(StatusCode.ERROR, f"{type(step.failure).__name__}: {step.failure}")
            self.failed[step.name] = span.get_span_context()
        span.end(end_time=ended_ns)
        return span.get_span_context()


def _agent(name: str, when: _When, *steps: Step) -> Step:
    attributes = {"gen_ai.operation.name": "invoke_agent", "clew.agent.role": "primary"}
    return _by(name, Step(f"invoke_agent {name}", *when, attributes, steps=steps))


def _by(agent: str, step: Step) -> Step:
    """The step and all in it as that agent's."""
    attributes = {**step.attributes, "gen_ai.agent.name": agent}
    return replace(step, attributes=attributes, steps=[_by(agent, inner) for inner in step.steps])


def _chat(model: str, when: _When, tokens: tuple[int, int], cost_usd: float, said: str) -> Step:
    attributes: Attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai" if model.startswith("gpt") else "mistral_ai",
        "gen_ai.request.model": model,
        "gen_ai.response.model": model,
        "gen_ai.usage.input_tokens": tokens[0],
        "gen_ai.usage.output_tokens": tokens[1],
        "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": said}]}]),
        "clew.cost.usd": cost_usd,
    }
    return Step(f"chat {model}", *when, attributes, kind=SpanKind.CLIENT)


def _tool(name: str, when: _When, arguments: Attributes, result: str = "") -> Step:
    attributes = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": name,
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.arguments": json.dumps(arguments),
        "gen_ai.tool.call.result": result,
    }
    return Step(f"execute_tool {name}", *when, attributes)


def _code(when: _When, source: str, exit_code: int, *steps: Step) -> Step:
    attributes: Attributes = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "python",
        "gen_ai.tool.call.arguments": json.dumps({"code": source}),
        "clew.event.type": "code_exec",
        "process.exit.code": exit_code,
    }
    return Step("run churn.py", *when, attributes, steps=steps)


def _file(path: str, when: _When, size_bytes: int, file_type: str) -> Step:
    written: Attributes = {
        "file.path": path,
        "file.size": size_bytes,
        "clew.file.type": file_type,
        "clew.file.role": "output",
    }
    logs = [Log("clew.file", when[1], written)]
    return Step(f"write {path}", *when, {"clew.event.type": "file_gen", "file.path": path}, logs=logs)


def _handoff(sender: str, recipient: str, at_ms: int, said: str) -> Step:
    message = {"clew.message.sender": sender, "clew.message.recipient": recipient, "clew.message.content": said}
    attributes = {
        "clew.event.type": "handoff",
        "gen_ai.agent.name": sender,
        "clew.inputs": json.dumps({"to": recipient}),
    }
    return Step(f"hand over to {recipient}", at_ms, 20, attributes, logs=[Log("clew.message", 5, message)])


def _approval(at_ms: int, waited_ms: int, feedback: str) -> Step:
    attributes = {"clew.event.type": "approval_requested", "clew.event.subtype": "approved"}
    pending = {"clew.approval.id": "plan-1", "clew.approval.status": "pending"}
    approved = {"clew.approval.id": "plan-1", "clew.approval.status": "approved", "clew.approval.feedback": feedback}
    logs = [Log("clew.approval", 0, pending), Log("clew.approval", waited_ms, approved)]
    return Step("approve the plan", at_ms, waited_ms, attributes, logs=logs)


def _failing(step: Step, failure: Exception) -> Step:
    return replace(step, failure=failure)


def _retrying(step: Step) -> Step:
    return replace(step, retries=True)


_QUERY = {"sql": "SELECT store, week, count(*) FROM departures WHERE month = '2026-10' GROUP BY ALL"}
_TOO_SLOW = TimeoutError("no answer within 5 s")
_WRONG_COLUMN = KeyError("closed_at")

CHURN_BRIEF = Step(
    "invoke_workflow churn-brief",
    at_ms=0,
    duration_ms=48_200,
    attributes={
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.workflow.name": "churn-brief",
        "session.id": "demo",
        "clew.task.title": "Which stores lost customers in October, and why?",
    },
    steps=[
        _agent(
            "planner",
            (40, 6_900),
            _chat(
                "gpt-5", (30, 4_100), (1_240, 410), 0.00565, "Read the departures, test three causes, write a brief."
            ),
            _approval(4_180, 2_650, "Good. Leave the stores that closed out of it."),
        ),
        _handoff("planner", "researcher", 6_960, "Find who left, where and when. Say how sure you are."),
        _agent(
            "researcher",
            (7_000, 16_400),
            _chat("gpt-5-mini", (20, 1_900), (2_105, 180), 0.00089, "I look into tickets and departures side by side."),
            _tool("search_tickets", (2_000, 1_350), {"query": "cancel OR leave", "month": "2026-10"}, "214 tickets"),
            _failing(_tool("query_warehouse", (2_010, 5_000), _QUERY), _TOO_SLOW),
            _retrying(_tool("query_warehouse", (7_300, 3_200), _QUERY, "1,931 rows")),
            _chat("gpt-5-mini", (10_600, 5_400), (8_730, 620), 0.00342, "Three stores lost customers after the 14th."),
            _file("notes.md", (16_150, 12), 4_820, "text/markdown"),
        ),
        _handoff("researcher", "engineer", 23_430, "Draw departures by store and week; the rows are in notes.md."),
        _agent(
            "engineer",
            (23_480, 17_300),
            _chat("codestral-2", (30, 4_400), (6_410, 890), 0.00273, "A script that groups departures by week."),
            _failing(_code((4_480, 900), "rows.groupby(rows['closed_at'])", 1), _WRONG_COLUMN),
            _chat("codestral-2", (5_450, 3_100), (7_480, 240), 0.00246, "The column is called left_at."),
            _retrying(
                _code(
                    (8_600, 4_750),
                    "rows.groupby(rows['left_at'])",
                    0,
                    _file("churn_by_store.csv", (3_300, 40), 18_204, "text/csv"),
                    _file("churn.png", (3_400, 1_280), 96_455, "image/png"),
                )
            ),
            _tool("check_totals", (13_450, 640), {"path": "churn_by_store.csv"}, "1,931 rows, totals agree"),
            _chat("codestral-2", (14_150, 3_050), (8_120, 310), 0.00272, "Totals agree with the warehouse."),
        ),
        _handoff("engineer", "planner", 40_820, "Table and chart are done, totals agree."),
        _agent(
            "planner",
            (40_870, 7_290),
            _chat(
                "gpt-5", (40, 6_900), (11_960, 1_480), 0.02975, "Deliveries to three stores were late after the 14th."
            ),
            _file("brief.md", (6_980, 18), 7_316, "text/markdown"),
        ),
    ],
)
