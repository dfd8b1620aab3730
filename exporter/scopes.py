"""The spans of a run as scopes: what is open inside a `with`, what can be opened from it and what can be said in it."""

from __future__ import annotations

import hashlib
import os
import traceback
from collections.abc import Mapping, Sequence
from contextvars import Token
from operator import index
from pathlib import Path
from stat import S_ISREG
from types import TracebackType
from typing import Any, Self, SupportsIndex, TypeVar

import orjson
from opentelemetry.context import Context, attach, create_key, detach, get_current, get_value, set_value
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, TracerProvider, format_span_id, set_span_in_context

AGENT_ROLES = ("primary", "helper", "validator")
APPROVAL_RESOLUTIONS = ("approved", "rejected", "modified")
CHECKPOINT_TYPES = ("step_complete", "timed", "manual", "error", "emergency")
FILE_ROLES = ("output", "input")

TEXT_MAX = 65_536
SNAPSHOT_MAX = 262_144
SPAN_TEXT_MAX = 1_000_000
HASHED_BYTES_MAX = 64 * 1024 * 1024
SHORT_TEXT = 256

_SCOPE = create_key("clew-scope")

Attributes = Mapping[str, Any]
Value = TypeVar("Value")


class Scope:
    """A span of a run that is open inside its `with` or `async with`.

    What is opened from it is its child: of the innermost span that is open within it in this thread or task, or of the
    scope itself where it was opened in another. An exception that leaves it is recorded and goes on.
    """

    def __init__(  # noqa: PLR0913  # what a span is made of
        self,
        provider: TracerProvider,
        opener: Scope | None,
        name: str,
        attributes: Attributes,
        *,
        inherited: Attributes | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        links: Sequence[Link] = (),
    ) -> None:
        """`inherited` are attributes that all spans within have as well."""
        self._provider, self._opener = provider, opener
        self._name, self._attributes, self._kind, self._links = name, attributes, kind, links
        self._inherited = _without_none(inherited or {})
        self._outer: Scope | None = None
        self._span: Span | None = None
        self._token: Token[Context] | None = None
        self._room = SPAN_TEXT_MAX

    def __enter__(self) -> Self:
        if self._span is not None:
            raise RuntimeError(f"{self._name!r} has been opened before; ask for a new one instead")
        self._outer, context = self._surroundings()
        if self._outer:
            self._inherited = {**self._outer._inherited, **self._inherited}
        self._span = self._provider.get_tracer("clew.record").start_span(
            _sendable(self._name[:SHORT_TEXT]),
            context=context,
            kind=self._kind,
            attributes=self._fitted({**self._inherited, **self._attributes}),
            links=self._links,
        )
        self._token = attach(set_value(_SCOPE, self, set_span_in_context(self._span, context)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not ends_well(error):
            self._recording.record_exception(error, self._fitted(_said_by(error)))
            self._failed(f"{type(error).__name__}: {error}")
        self._recording.end()
        if self._token:
            detach(self._token)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    @property
    def id(self) -> str:
        """The event's id: the span id, 16 hex digits."""
        return format_span_id(self._recording.get_span_context().span_id)

    def node(
        self,
        name: str,
        *,
        node_type: str = "agent",
        agent: str | None = None,
        depends_on: Sequence[str] = (),
        order: int | None = None,
    ) -> Scope:
        """A node of the run's graph: its name is unique within the run, `node_type` is planning, control, agent,
        approval, parallel_group or terminator, `depends_on` are names of nodes, `order` is its place among them."""
        attributes = {"clew.node.type": node_type, "clew.node.order": order, "clew.node.depends_on": list(depends_on)}
        inherited = {"clew.node.id": given("node", "name", name), "gen_ai.agent.name": agent}
        return self._opened(f"node {name}", attributes, inherited)

    def step(self, number: int, name: str = "", *, agent: str | None = None, inputs: Any = None) -> Step:
        """The numbered step of the run's plan, known as `step_<number>`."""
        attributes = {"clew.step.number": number, "clew.inputs": _text(inputs)}
        inherited = {"clew.step.id": f"step_{number}", "gen_ai.agent.name": agent}
        return Step(self._provider, self, f"step {number} {name}".rstrip(), attributes, inherited=inherited)

    def agent_call(self, agent: str, *, model: str | None = None, role: str = "primary", inputs: Any = None) -> Scope:
        """An agent's turn; `role` is one of AGENT_ROLES."""
        attributes = {
            "clew.event.type": "agent_call",
            "clew.agent.role": known("role", role, AGENT_ROLES),
            "clew.inputs": _text(inputs),
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.request.model": model,
        }
        inherited = {"gen_ai.agent.name": given("agent_call", "agent", agent)}
        return self._opened(f"invoke_agent {agent}", attributes, inherited)

    def chat(self, model: str, *, provider: str | None = None, inputs: Any = None) -> Scope:
        """A call of a model; its tokens and cost belong here rather than on the turn around it."""
        attributes = {
            "clew.event.type": "agent_call",
            "clew.inputs": _text(inputs),
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": provider,
            "gen_ai.request.model": given("chat", "model", model),
        }
        return Scope(self._provider, self, f"chat {model}", attributes, kind=SpanKind.CLIENT)

    def tool_call(self, tool: str, *, inputs: Any = None, call_id: str | None = None) -> ToolCall:
        """A call of a tool."""
        return ToolCall(self._provider, self, f"execute_tool {tool}", _tool_call("tool_call", tool, inputs, call_id))

    def code_exec(self, language: str, code: str) -> CodeExec:
        """The execution of `code`; `language` is the tool that runs it ("python", "bash")."""
        attributes = _tool_call("code_exec", language, {"code": given("code_exec", "code", code)}, None)
        return CodeExec(self._provider, self, f"execute_tool {language}", attributes)

    def approval(self, request: str, *, context: Any = None, approval_id: str | None = None) -> Approval:
        """A question to a human, open until it is answered; `approval_id` is the span id unless given."""
        return Approval(self, given("approval", "request", request), context, approval_id)

    def handoff(self, to: str, *, reason: str | None = None) -> None:
        """The agent at work hands over to the agent `to`; a `reason` is its message to it."""
        inputs = {"to": given("handoff", "to", to), "reason": reason}
        attributes = {"clew.event.type": "handoff", "clew.inputs": _text(_without_none(inputs))}
        with self._opened(f"handoff {to}", attributes) as event:
            if reason:
                event.message(reason, sender=event._inherited.get("gen_ai.agent.name"), recipient=to)

    def file(
        self,
        path: str | os.PathLike[str],
        *,
        file_type: str | None = None,
        role: str = "output",
        size_bytes: int | None = None,
        sha256: str | None = None,
    ) -> None:
        """A file that was written or read; `role` is one of FILE_ROLES, `file_type` code, data, plot, log or other.

        Size and digest are read from the file where it is there, the digest of files up to HASHED_BYTES_MAX.
        """
        name = given("file", "path", os.fsdecode(path or ""))
        if size_bytes is None or sha256 is None:
            size_found, sha256_found = _size_and_sha256(Path(name))
            size_bytes = size_found if size_bytes is None else size_bytes
            sha256 = sha256 or sha256_found
        attributes = {
            "file.path": name,
            "file.size": size_bytes,
            "clew.file.type": file_type,
            "clew.file.role": known("role", role, FILE_ROLES),
            "clew.file.sha256": sha256,
        }
        self._log("clew.file", attributes)

    def message(
        self, content: Any, *, sender: str | None = None, recipient: str | None = None, tokens: int | None = None
    ) -> None:
        """Something said; `content` is text, or written as JSON."""
        attributes = {
            "clew.message.sender": sender,
            "clew.message.recipient": recipient,
            "clew.message.content": given("message", "content", _text(content)),
            "clew.message.tokens": tokens,
        }
        self._log("clew.message", attributes)

    def checkpoint(
        self, context: Any, checkpoint_type: str = "manual", *, path: str | os.PathLike[str] | None = None
    ) -> None:
        """The context of the work at this moment, as JSON; `path` names the file that has all of it.

        It is an event of its own and leaves at once, whatever becomes of the scopes that are open.
        """
        attributes = {
            "clew.checkpoint.type": known("checkpoint_type", checkpoint_type, CHECKPOINT_TYPES),
            "clew.checkpoint.path": None if path is None else os.fsdecode(path),
            "clew.checkpoint.snapshot": _json(context),
        }
        with self._opened(f"checkpoint {checkpoint_type}", {"clew.event.type": "info"}) as event:
            event._log("clew.checkpoint", attributes, text_max=SNAPSHOT_MAX)

    def usage(
        self, *, input_tokens: int | None = None, output_tokens: int | None = None, cost_usd: float | None = None
    ) -> None:
        """What the call consumed; cached and reasoning tokens are parts of these counts."""
        attributes = {
            "gen_ai.usage.input_tokens": input_tokens,
            "gen_ai.usage.output_tokens": output_tokens,
            "clew.cost.usd": cost_usd,
        }
        self._set(attributes)

    def outputs(self, outputs: Any) -> None:
        """What came out: text, or written as JSON."""
        self._set({"clew.outputs": _text(outputs)})

    @property
    def _recording(self) -> Span:
        if self._span is None:
            raise RuntimeError(f"{self._name!r} is not open; write `with ... as scope:` and use it inside")
        return self._span

    def _opened(self, name: str, attributes: Attributes, inherited: Attributes | None = None) -> Scope:
        return Scope(self._provider, self, name, attributes, inherited=inherited)

    def _surroundings(self) -> tuple[Scope | None, Context]:
        """The scope that this one belongs into, and the context with the span that becomes its parent."""
        context = get_current()
        innermost = get_value(_SCOPE, context)
        assert innermost is None or isinstance(innermost, Scope)  # noqa: S101  # the key is this module's
        if self._opener is None or (innermost and innermost._is_within(self._opener)):
            return innermost, context
        return self._opener, set_span_in_context(self._opener._recording, context)

    def _is_within(self, scope: Scope) -> bool:
        outer: Scope | None = self
        while outer is not None and outer is not scope:
            outer = outer._outer
        return outer is scope

    def _log(self, name: str, attributes: Attributes, *, text_max: int = TEXT_MAX) -> None:
        self._recording.add_event(name, self._fitted(attributes, text_max))

    def _set(self, attributes: Attributes) -> None:
        self._recording.set_attributes(self._fitted(attributes))

    def _failed(self, why: str) -> None:
        self._set({"clew.event.subtype": "error"})
        self._recording.set_status(StatusCode.ERROR, _sendable(why[:TEXT_MAX]))

    def _fitted(self, attributes: Attributes, text_max: int = TEXT_MAX) -> dict[str, Any]:
        """Those that say something, texts cut to what a text and this span may have. Short ones stay whole: a status
        set at the end is to arrive however much was said before."""
        fitted: dict[str, Any] = {}
        cut = []
        for key, value in attributes.items():
            if isinstance(value, str):
                fitted[key] = _sendable(value[: max(SHORT_TEXT, min(text_max, self._room))])
                self._room -= len(fitted[key])
                cut += [key] if len(fitted[key]) < len(value) else []
            elif value is not None and value != []:
                fitted[key] = _attribute_value(value)
        return {**fitted, "clew.truncated": cut} if cut else fitted


class Step(Scope):
    """A numbered step of the run's plan."""

    def progress(self, percent: int) -> None:
        """How much of the step is done, 0 to 100."""
        if not 0 <= percent <= 100:
            raise ValueError(f"progress() is a percentage from 0 to 100, not {percent}")
        self._set({"clew.step.progress": percent})


class ToolCall(Scope):
    """A call of a tool."""

    def outputs(self, outputs: Any) -> None:
        """What the tool answered: text, or written as JSON."""
        self._set({"gen_ai.tool.call.result": _text(outputs)})


class CodeExec(ToolCall):
    """Code that is executed."""

    def exit_code(self, exit_code: int) -> None:
        """The exit code of the process that ran it; any but 0 is a failure."""
        self._set({"process.exit.code": exit_code})
        if exit_code:
            self._failed(f"exit code {exit_code}")


class Approval(Scope):
    """A question to a human; pending until `resolve`."""

    def __init__(self, opener: Scope, request: str, context: Any, approval_id: str | None) -> None:
        inputs = _text(_without_none({"request": request, "context": context}))
        attributes = {
            "clew.event.type": "approval_requested",
            "clew.event.subtype": "pending",
            "clew.inputs": inputs,
        }
        super().__init__(opener._provider, opener, f"approval {request[:100]}", attributes)
        self._approval_id = approval_id

    def __enter__(self) -> Self:
        super().__enter__()
        self._tell("pending")
        return self

    def resolve(self, status: str, *, feedback: str | None = None, resolution: str | None = None) -> None:
        """The answer: `status` is one of APPROVAL_RESOLUTIONS; `modified` is approved with changes."""
        known("status", status, APPROVAL_RESOLUTIONS)
        self._set({"clew.event.subtype": "rejected" if status == "rejected" else "approved"})
        self._tell(status, {"clew.approval.resolution": resolution, "clew.approval.feedback": feedback})

    def _tell(self, status: str, answer: Attributes | None = None) -> None:
        question = {"clew.approval.id": self._approval_id or self.id, "clew.approval.status": status}
        self._log("clew.approval", {**question, **(answer or {})})


def given(method: str, what: str, value: Value | None) -> Value:
    """The value. Raises ValueError where there is none."""
    if not value:
        raise ValueError(f"{method}() needs its {what}, not {value!r}")
    return value


def known(what: str, value: str, values: Sequence[str]) -> str:
    """The value. Raises ValueError, which lists the values there are, for any other."""
    if value not in values:
        raise ValueError(f"unknown {what} {value!r}; known are {', '.join(values)}")
    return value


def ends_well(error: BaseException | None) -> bool:
    """Whether a block that is left by this exception has not failed."""
    return error is None or isinstance(error, GeneratorExit) or (isinstance(error, SystemExit) and not error.code)


def _said_by(error: BaseException) -> Attributes:
    """What the SDK records of an exception, of which it cuts and cleans nothing."""
    return {"exception.message": str(error), "exception.stacktrace": "".join(traceback.format_exception(error))}


def _tool_call(event_type: str, tool: str, arguments: Any, call_id: str | None) -> Attributes:
    return {
        "clew.event.type": event_type,
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": given(event_type, "tool", tool),
        "gen_ai.tool.call.id": call_id,
        "gen_ai.tool.call.arguments": _text(arguments),
    }


def _without_none(values: Attributes) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY).decode()
    except TypeError:  # circular, nested too deep, numbers past 64 bits
        return repr(value)


def _attribute_value(value: Any) -> Any:
    """As OTLP can carry it."""
    if isinstance(value, list):
        return [_sendable(str(item)[:SHORT_TEXT]) for item in value]
    if isinstance(value, bool | float):
        return value
    if isinstance(value, SupportsIndex) and -(2**63) <= index(value) < 2**63:
        return index(value)
    return _sendable(str(value)[:TEXT_MAX])


def _sendable(text: str) -> str:
    """Without lone surrogates: one of them and the whole request could not be encoded."""
    return text.encode("utf-8", "replace").decode()


def _size_and_sha256(path: Path) -> tuple[int | None, str | None]:
    """Of a file that is there and can be read, else None; the digest of no more than HASHED_BYTES_MAX."""
    try:
        found = path.stat()
        if not S_ISREG(found.st_mode):
            return None, None
        if found.st_size > HASHED_BYTES_MAX:
            return found.st_size, None
        with path.open("rb") as content:
            return found.st_size, hashlib.file_digest(content, "sha256").hexdigest()
    except OSError:
        return None, None
