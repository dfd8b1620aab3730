"""The settings of `clew serve`: each one's name, option, environment variable, default and meaning, once.

Typer reads its options from the annotations, so a setting added here is an option and a variable at the same time.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from platformdirs import user_data_path

# Where a server listens that is told nothing.
LOCAL_URL = "http://127.0.0.1:4318"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a server is told. An option on the command line goes before its environment variable."""

    db: Annotated[
        str | None,
        typer.Option(
            envvar="CLEW_DB",
            metavar="PATH",
            show_default="clew.duckdb in your data folder",
            help="Where the data is: a file, or [cyan]duckdb:///path[/].",
        ),
    ] = None
    host: Annotated[
        str, typer.Option(envvar="CLEW_HOST", help="The address to listen on. clew has no authentication yet.")
    ] = "127.0.0.1"
    grpc_port: Annotated[
        int, typer.Option(envvar="CLEW_GRPC_PORT", min=0, max=65535, help="Port of OTLP/gRPC; 0 takes a free one.")
    ] = 4317
    http_port: Annotated[
        int,
        typer.Option(envvar="CLEW_HTTP_PORT", min=0, max=65535, help="Port of OTLP/HTTP and the API; 0 as above."),
    ] = 4318
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            envvar="CLEW_CORS_ORIGINS",
            metavar="ORIGIN",
            show_default="none",
            help="A web origin whose pages may call this server; repeat it, or separate several by commas.",
        ),
    ] = None
    export: Annotated[
        list[str] | None,
        typer.Option(
            "--export",
            envvar="CLEW_EXPORT",
            metavar="URL",
            show_default="none",
            help="Send on what comes to this backend, otlp-grpc://HOST:4317 say; repeat it for several.",
        ),
    ] = None
    sql_seconds_max: Annotated[
        float,
        typer.Option(envvar="CLEW_SQL_SECONDS_MAX", min=0.1, help="How many seconds a query in SQL may take."),
    ] = 30.0
    sql_rows_max: Annotated[
        int,
        typer.Option(envvar="CLEW_SQL_ROWS_MAX", min=1, help="How many rows a query in SQL may answer."),
    ] = 10_000
    demo: Annotated[
        bool,
        typer.Option("--demo", help="Record a run of three agents first and show it. Uses demo.duckdb unless told."),
    ] = False

    @property
    def database(self) -> str:
        """Where the data is: as told, else a file in the user's data folder. A demo has a file of its own, so that toy
        data stays out of real data."""
        return self.db or str(data_folder() / ("demo.duckdb" if self.demo else "clew.duckdb"))

    @property
    def cors_origins(self) -> list[str]:
        listed = ",".join(self.cors_origin or ()).split(",")
        return [origin.strip() for origin in listed if origin.strip()]


def data_folder() -> Path:
    """The user's data folder for clew, by the platform's rules."""
    return user_data_path("clew", appauthor=False)
