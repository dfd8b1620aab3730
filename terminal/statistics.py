"""A run summed up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.text import Text

from .cells import ICONS, OTHER_ICON, Record, cost_text, counted, duration_text, header_cells, print_rows, text_cell


def draw_statistics(to: Console, statistics: Record) -> None:
    """The run summed up, then its event types, agents and models, each with what it used."""
    to.print(_summary(statistics), soft_wrap=True)
    calls = {usage["model"]: usage["events"] for usage in statistics["usage_by_model"]}
    for key, counted_as, counts in (
        ("event_type", "events", statistics["event_types"]),
        ("agent_name", "events", _events_by_agent(statistics)),
        ("model", "calls", calls),
    ):
        rows = _usage_rows(key, counts, statistics[f"usage_by_{key.removesuffix('_name')}"])
        if rows:
            to.print()
            header = [key.removesuffix("_name").replace("_", " "), counted_as, "tokens in", "tokens out", "cost"]
            print_rows(to, [header_cells(header), *rows], "<>>>>", flexible=0)


def _events_by_agent(statistics: Record) -> dict[str | None, int]:
    """How many events name each agent, and how many none; none at all where none is named."""
    named: dict[str | None, int] = dict(statistics["agent_call_counts"])
    unnamed = statistics["total_events"] - sum(named.values())
    return named | {None: unnamed} if named and unnamed else named


def _summary(statistics: Record) -> Text:
    usage = statistics["usage"]
    mean_ns, sum_ns = (int(statistics[name] * 1e6) for name in ("avg_duration_ms", "total_duration_ms"))
    events = [counted(statistics["total_events"], "event"), counted(statistics["errors"], "error")]
    percentiles = statistics["duration_percentiles_ns"].items()
    durations = [f"{name} {duration_text(value)}" for name, value in percentiles if value is not None]
    used = [f"{usage['input_tokens']:,} in", f"{usage['output_tokens']:,} out", cost_text(usage["cost_usd"])]
    lines = [
        ("run        ", [statistics["run_id"]]),
        ("events     ", [*events, f"{duration_text(sum_ns)} in all"]),
        ("durations  ", [f"mean {duration_text(mean_ns)}", *durations]),
        ("tokens     ", list(filter(None, used)) if usage["events"] else ["none reported"]),
    ]
    return Text("\n").join(Text.assemble((title, "dim"), " · ".join(told)) for title, told in lines)


def _usage_rows(key: str, counts: Mapping[str | None, int], usages: Iterable[Record]) -> list[list[Text]]:
    """One line a name, those that used most first, then those that were most often."""
    by_name = {usage[key]: usage for usage in usages}
    names = [*by_name, *sorted(counts.keys() - by_name.keys(), key=lambda name: (-counts[name], name or ""))]
    return [[_name_cell(key, name), *_usage_cells(counts, name, by_name.get(name, {}))] for name in names]


def _name_cell(key: str, name: str | None) -> Text:
    if name is None:
        return Text("(none)", "dim")
    if key != "event_type":
        return text_cell(name)
    return Text.assemble(ICONS.get(name, OTHER_ICON), " ", text_cell(name))


def _usage_cells(counts: Mapping[str | None, int], name: str | None, usage: Record) -> list[Text]:
    tokens = [f"{usage[key]:,}" if usage.get(key) else "" for key in ("input_tokens", "output_tokens")]
    count = counts.get(name, usage.get("events", 0))
    return [Text(f"{count:,}"), *map(Text, tokens), Text(cost_text(usage.get("cost_usd")))]
