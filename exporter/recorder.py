"""An application's side of a run: what its agents do, recorded as OpenTelemetry spans and span events.

    with clew.run("Why did stores lose customers?", mode="one_shot", session="anna") as run:
        with run.agent_call("researcher", model="gpt-5") as call:
            with call.tool_call("search", inputs={"query": "cancel"}) as tool:
                tool.outputs({"tickets": 214})

Names are OTel's (`gen_ai.*`, `file.*`, `session.id`) where it has them, else `clew.*`; any OTel backend can read them.

The recorder never makes the application fail, wait for a server or grow without bounds: texts are cut at TEXT_MAX
characters (snapshots at SNAPSHOT_MAX); once a span and its span events have SPAN_TEXT_MAX, further ones at SHORT_TEXT.
`clew.truncated` then lists the attributes that were cut. Only misuse raises: ValueError for a value, RuntimeError for a
scope that is used before its `with` or opened twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

from anyio import to_thread
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext, TracerProvider, format_trace_id

from .delivery import chosen_provider, flush, pending_processor, tracer_provider
from .scopes import (
    AGENT_ROLES,
    APPROVAL_RESOLUTIONS,
    CHECKPOINT_TYPES,
    FILE_ROLES,
    HASHED_BYTES_MAX,
    SHORT_TEXT,
    SNAPSHOT_MAX,
    SPAN_TEXT_MAX,
    TEXT_MAX,
    Approval,
    Attributes,
    CodeExec,
    Scope,
    Step,
    ToolCall,
    ends_well,
    given,
    known,
)

__all__ = [
    "AGENT_ROLES",
    "APPROVAL_RESOLUTIONS",
    "CHECKPOINT_TYPES",
    "FILE_ROLES",
    "HASHED_BYTES_MAX",
    "RUN_STATUSES",
    "SHORT_TEXT",
    "SNAPSHOT_MAX",
    "SPAN_TEXT_MAX",
    "TEXT_MAX",
    "Approval",
    "CodeExec",
    "Run",
    "Scope",
    "Step",
    "ToolCall",
    "pending_processor",
    "run",
    "tracer_provider",
]

RUN_STATUSES = ("draft", "planning", "executing", "paused", "waiting_approval", "completed", "failed")
_AT_WORK = ("draft", "planning", "executing")


def run(  # noqa: PLR0913  # by keyword, each a column of the run
    task: str,
    *,
    workflow: str | None = None,
    mode: str | None = None,
    agent: str | None = None,
    model: str | None = None,
    session: str | None = None,
    project: str | None = None,
    task_id: str | None = None,
    endpoint: str | None = None,
    jaeger: str | None = None,
) -> Run:
    """A run that works on `task`, to be opened by `with` or `async with`.

    It is a trace of its own, or joins the trace of the span that is open around it. Its spans go to `endpoint` and
    `jaeger` (see `tracer_provider`) if given, else to the application's tracer provider if it has set one, else where
    `tracer_provider()` sends. At its end it waits until they have arrived, five seconds at most.
    """
    settings = _Settings(given("run", "task", task), workflow, mode, agent, model, session, project, task_id)
    return Run(settings, chosen_provider(endpoint, jaeger))


@dataclass(frozen=True)
class _Settings:
    task: str
    workflow: str | None
    mode: str | None
    agent: str | None
    model: str | None
    session: str | None
    project: str | None
    task_id: str | None

    def attributes(self) -> Attributes:
        return {
            "gen_ai.operation.name": "invoke_workflow",
            "gen_ai.workflow.name": self.workflow,
            "clew.run.task": self.task,
            "clew.run.mode": self.mode,
            "clew.run.agent": self.agent,
            "clew.run.model": self.model,
            "clew.project.name": self.project,
            "clew.task.id": self.task_id,
            "clew.task.title": self.task_id and self.task,
        }


class Run(Scope):
    """One execution of a workflow: the scope around all others."""

    def __init__(self, settings: _Settings, provider: TracerProvider, branched_by: Link | None = None) -> None:
        super().__init__(
            provider,
            None,
            f"invoke_workflow {settings.workflow or ''}".rstrip(),
            settings.attributes(),
            inherited={"session.id": settings.session},
            links=[branched_by] if branched_by else [],
        )
        self._settings = settings
        self._branched = branched_by is not None
        self._status = "executing"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(kind, error, trace)
        flush(self._provider)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(kind, error, trace)
        await to_thread.run_sync(flush, self._provider)

    @property
    def run_id(self) -> str:
        """The run's id: the trace id, 32 hex digits."""
        return format_trace_id(self._recording.get_span_context().trace_id)

    def state_transition(self, from_state: str, to_state: str, *, reason: str | None = None) -> None:
        """The run's status changes; both are of RUN_STATUSES. A run that is paused or waits at its end stays so.

        It is an event of its own and leaves at once.
        """
        attributes = {
            "clew.state_transition.from": known("from_state", from_state, RUN_STATUSES),
            "clew.state_transition.to": known("to_state", to_state, RUN_STATUSES),
            "clew.state_transition.reason": reason,
        }
        said = {"clew.event.type": "state_transition", "clew.run.status": to_state}
        with self._opened(f"state_transition {to_state}", said) as event:
            event._log("clew.state_transition", attributes)
        self._status = to_state

    def branch(self, name: str, *, hypothesis: str | None = None, from_event: Scope | str | None = None) -> Run:
        """Another run at the same task, which tries `hypothesis` from `from_event` on: a scope of this run or its id;
        this run's beginning unless given. It is a trace of its own whose first span links here."""
        attributes = {"clew.branch.name": given("branch", "name", name), "clew.branch.hypothesis": hypothesis}
        link = Link(self._context_of(from_event), self._fitted({"clew.link.type": "branch", **attributes}))
        return Run(self._settings, self._provider, branched_by=link)

    def _end(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        at_the_end = "completed" if self._status in _AT_WORK else self._status
        self._set({"clew.run.status": at_the_end if ends_well(error) else "failed"})
        super().__exit__(kind, error, trace)

    def _surroundings(self) -> tuple[Scope | None, Context]:
        return (None, Context()) if self._branched else super()._surroundings()

    def _context_of(self, event: Scope | str | None) -> SpanContext:
        if not isinstance(event, str):
            return (event or self)._recording.get_span_context()
        try:
            span_id = int(event, 16) if len(event) == 16 else 0
        except ValueError:
            span_id = 0
        if not span_id:
            raise ValueError(f"branch() takes a scope or an event id of 16 hex digits as from_event, not {event!r}")
        return SpanContext(self._recording.get_span_context().trace_id, span_id, is_remote=False)
