"""Targets' URLs: what they say, what is refused, and that secrets are not shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from clew.exporter.outgoing import Signal
from clew.exporter.targets import TARGETS_MAX, BadTarget, Target, targets_of


def test_a_host_is_enough() -> None:
    """The rest is as usual: OTLP's port, all signals, the host as the name."""
    target = Target.parse("otlp-grpc://jaeger")
    assert (target.name, target.authority, target.is_tls) == ("jaeger", "jaeger:4317", False)
    assert target.signals == tuple(Signal)
    assert Target.parse("otlp-https://[::1]/api/").address == "otlp-https://[::1]:4318/api"


def test_everything_said() -> None:
    """Headers by several parameters, a plus is a plus; a filter with blanks, encoded or not."""
    url = "otlp-http://h:1?name=n&header=x-a:1%2B&header=Authorization:Basic a+b=&filter=status = failed&signals=logs"
    target = Target.parse(f"{url},traces&compression=none&timeout=2.5")
    assert dict(target.headers) == {"x-a": "1+", "authorization": "Basic a+b="}
    assert (target.name, target.filter, target.signals) == ("n", "status = failed", (Signal.LOGS, Signal.TRACES))
    assert (target.compression, target.timeout_s) == ("none", 2.5)


def test_a_filter_is_about_spans() -> None:
    """Logs and metrics are sent beside a filter only where they are asked for."""
    assert Target.parse("otlp-grpc://h?filter=agent%20=%20x").signals == (Signal.TRACES,)


def test_several_in_one_text() -> None:
    """An environment variable holds several, with blanks, lines or commas between."""
    found = targets_of(["otlp-grpc://a,otlp-http://b?signals=traces,logs\n otlp-grpcs://c", "otlp-grpc://d, "])
    assert [target.name for target in found] == ["a", "b", "c", "d"]
    assert targets_of([" "]) == []


HIDDEN = "hunter2"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("jaeger:4317", "otlp-grpc://HOST:4317"),
        (f"http://user:{HIDDEN}@h", "no scheme of a target"),
        ("otlp-grpc://", "no host"),
        ("otlp-grpc://h:port", "not a URL"),
        ("otlp-grpc://h:4317/v1/traces", "no paths"),
        (f"otlp-grpc://user:{HIDDEN}@h", "header=authorization"),
        (f"otlp-grpc://h?header=authorization={HIDDEN}", "NAME:VALUE"),
        (f"otlp-grpc://h?header=content-type:{HIDDEN}", "not for targets"),
        (f"otlp-grpc://h?header=a:{HIDDEN}%0Ab", "characters"),
        (f"otlp-grpc://h?token={HIDDEN}", "no parameter 'token'"),
        ("otlp-grpc://h?name=a&name=b", "say name once"),
        ("otlp-grpc://h?name=a%20b", "no name"),
        ("otlp-grpc://h?signals=spans", "traces, logs, metrics"),
        ("otlp-grpc://h?compression=zstd", "gzip or none"),
        ("otlp-grpc://h?timeout=never", "seconds"),
        ("otlp-grpc://h?ca=/no/such.pem", "otlp-grpcs://"),
        ("otlp-grpcs://h?ca=/no/such.pem", "/no/such.pem"),
        ("otlp-grpcs://h?cert=/no/such.pem", "key=FILE"),
        ("otlp-grpc://h?filter=a#b", "%23"),
    ],
)
def test_what_is_wrong_is_told_without_secrets(url: str, told: str) -> None:
    """Each message says what to write instead, and quotes nothing that may be secret."""
    with pytest.raises(BadTarget) as refused:
        Target.parse(url)
    assert told in str(refused.value)
    assert HIDDEN not in str(refused.value)


def test_names_are_unique() -> None:
    """A name is a target's own: its cursor goes by it."""
    with pytest.raises(BadTarget, match=r"2 targets are called 'h'.*\?name="):
        targets_of(["otlp-grpc://h", "otlp-http://h"])


def test_there_is_a_most() -> None:
    """Each target takes a thread and reads what is stored."""
    with pytest.raises(BadTarget, match=f"more than {TARGETS_MAX}"):
        targets_of([f"otlp-grpc://h{number}" for number in range(TARGETS_MAX + 1)])


def test_a_target_is_shown_without_its_headers(tmp_path: Path) -> None:
    """Neither its address nor its `repr` tells them."""
    (tmp_path / "ca.pem").write_text("x")
    target = Target.parse(f"otlp-grpcs://h?header=authorization:{HIDDEN}&ca={tmp_path}/ca.pem")
    assert target.headers["authorization"] == HIDDEN
    assert HIDDEN not in target.address + repr(target) + str(target)
