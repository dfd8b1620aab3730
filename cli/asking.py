"""What commands share: how they ask a server, and how they tell what they found or why they did not."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from .. import terminal

if TYPE_CHECKING:
    from ..client import Client

RunId = Annotated[str | None, typer.Argument(metavar="RUN", help="A run's id or the start of it; else the latest run.")]
Url = Annotated[str, typer.Option(envvar="CLEW_URL", help="The server to ask.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the API's answer as it came.")]


def one_of(words: Sequence[str]) -> Callable[[], list[str]]:
    """For an option's completion."""
    return lambda: list(words)


def listed(words: Sequence[str]) -> str:
    """For an option's help: `a, b or c`."""
    return f"{', '.join(words[:-1])} or {words[-1]}"


@contextmanager
def asking(url: str, text: str | None = None, **options: str) -> "Iterator[Client]":
    """A client of the server at `url`; what it cannot answer ends the command. `text` is the filter that it is asked
    with: the character of it that cannot be read is pointed at. `options`: what parameters are called here that have
    another name there."""
    from ..client import Client, ClientError

    with mistakes_told(ClientError):
        try:
            yield Client(url)
        except ClientError as error:
            told = str(error)
            if error.parameter in options:
                told = options[error.parameter] + told.removeprefix(error.parameter)
            if error.parameter == "filter" and text is not None and error.position is not None:
                told += f"\n{terminal.pointed_at(text, error.position)}"
            raise ClientError(told) from error


@contextmanager
def mistakes_told(*mistakes: type[Exception]) -> Iterator[None]:
    """Ends the command with one line on stderr and exit code 1 where one of these is raised."""
    try:
        yield
    except mistakes as mistake:
        print(f"clew: {mistake}", file=sys.stderr)
        raise typer.Exit(1) from mistake


def say(line: str) -> None:
    print(line, flush=True)


@contextmanager
def interruption_told(what_now: str) -> Iterator[None]:
    """Ctrl-C within ends the command, and says what to do now."""
    try:
        yield
    except KeyboardInterrupt:
        warn(f"interrupted; {what_now}")
        raise typer.Exit(130) from None


def warn(text: str) -> None:
    print(f"clew: warning: {text}", file=sys.stderr, flush=True)
