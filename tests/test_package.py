"""The package as others get it, and the rules its sources keep."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import clew
from clew import storage

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["setuptools"]["packages"]
FOLDERS = {name.split(".")[1] for name in PACKAGES if "." in name}
NOT_PACKAGED = {"tests", "bench", "examples", "docs"}
MAY_IMPORT = {
    "storage": set(),
    "collector": {"storage"},
    "query": {"storage", "__version__"},
    "exporter": {"storage"},
    "migrations": {"storage"},
    "transfer": {"collector", "exporter", "query", "storage", "client"},
    "terminal": set(),
}
LOADED_BY_PATH = {Path("migrations/env.py")}  # Alembic runs it as a script: it has no package to be relative to
LINES_MAX = 500


def _files() -> list[Path]:
    """What the repository holds, or will with the next commit; nothing that git ignores."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return sorted(Path(name) for name in names if name and (ROOT / name).is_file())


FILES = _files()
SOURCES = [path for path in FILES if path.suffix in {".py", ".pyi"}]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the repository's files: leftovers in the work tree have no part in it."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for path in FILES:
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes((ROOT / path).read_bytes())
    _pip("wheel", "-q", "--no-deps", "--no-build-isolation", "--wheel-dir", str(built), str(source))
    return next(built.glob("clew-*.whl"))


def test_the_wheel_holds_nothing_but_clew(wheel: Path) -> None:
    """Installing clew puts `clew` and its metadata into site-packages, and nothing else."""
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"clew", f"clew-{PROJECT['project']['version']}.dist-info"}


def test_the_wheel_holds_every_module(wheel: Path) -> None:
    """Every module of the package is in the wheel, and the types marker, the licence and the migrations' template."""
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {f"clew/{path.as_posix()}" for path in _package_sources()}
    assert modules <= names
    assert "clew/py.typed" in names
    assert any(name.endswith("/LICENSE") for name in names)
    assert {name for name in names if name.startswith(("clew/tests", "clew/bench", "clew/docs"))} == set()


def test_the_wheel_installs_the_command(wheel: Path, tmp_path: Path) -> None:
    """The installed command `clew` runs and says its version."""
    _pip("install", "-q", "--ignore-installed", "--no-deps", "--no-index", "--prefix", str(tmp_path), str(wheel))
    site = next(tmp_path.glob("lib/python*/site-packages"))
    answer = subprocess.run(
        [tmp_path / "bin" / "clew", "--version"],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout == f"clew {PROJECT['project']['version']}\n"
    assert sorted(path.name for path in site.iterdir() if path.suffix != ".dist-info") == ["clew"]


def test_every_folder_of_modules_is_listed() -> None:
    """A new folder with modules is a listed package; else the wheel would lack it."""
    folders = {path.parent.as_posix().replace("/", ".") for path in SOURCES if path.parts[0] not in NOT_PACKAGED}
    assert {"clew" if name == "." else f"clew.{name}" for name in folders} == set(PACKAGES)


def test_the_wheel_says_what_storage_has(wheel: Path) -> None:
    """Names are imported as the stub says where they are, so it has to come along."""
    assert "clew/storage/__init__.pyi" in zipfile.ZipFile(wheel).namelist()
    assert all(getattr(storage, name) is not None for name in storage.__all__)


def test_names_are_completed_before_they_are_loaded() -> None:
    """`clew.` and the tabulator key show what there is."""
    assert {"connect", "open", "record", "run", "ClientError"} <= set(dir(clew))


def test_whoever_receives_loads_no_database() -> None:
    """The process that receives is there, and there again, in half the time."""
    code = "import sys, clew.collector.receiving; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"alembic", "duckdb", "fastapi", "sqlalchemy"}.intersection(loaded)


def test_imports_point_one_way() -> None:
    """cli → collector, query, exporter → storage: siblings never import one another, storage only itself."""
    wrong = [
        f"{path} imports clew.{target}"
        for path in _package_sources()
        for target in _clew_imports(path)
        if path.parts[0] in MAY_IMPORT and target not in MAY_IMPORT[path.parts[0]] | {path.parts[0]}
    ]
    assert wrong == []


def test_no_module_is_imported_by_its_folder_alone() -> None:
    """`import storage` would load a second copy of the module when the root is on sys.path."""
    bare = FOLDERS | {path.stem for path in _package_sources() if len(path.parts) == 1}
    wrong = [f"{path} imports {name}" for path in SOURCES for name in _absolute_imports(path) if name in bare]
    assert wrong == []


def test_modules_import_one_another_relatively() -> None:
    """Inside the package imports are relative, so that a copy under another name stays one package."""
    wrong = [str(path) for path in set(_package_sources()) - LOADED_BY_PATH if "clew" in _absolute_imports(path)]
    assert wrong == []


def test_a_migration_stands_alone() -> None:
    """A version of the schema imports nothing of clew: what clew becomes cannot change what it did."""
    versions = [path for path in SOURCES if path.parts[:2] == ("migrations", "versions")]
    assert [str(path) for path in versions if _clew_imports(path)] == []


def test_no_module_is_a_drawer() -> None:
    """A module is named for what it is about."""
    drawers = {"utils", "util", "common", "helpers", "helper", "manager", "misc"}
    assert [str(path) for path in SOURCES if path.stem in drawers] == []


def test_no_source_is_too_long() -> None:
    """A file can be read in one sitting."""
    lengths = {str(path): len((ROOT / path).read_text().splitlines()) for path in SOURCES}
    assert {path: lines for path, lines in lengths.items() if lines > LINES_MAX} == {}


def _package_sources() -> list[Path]:
    return [path for path in SOURCES if path.parts[0] not in NOT_PACKAGED]


def _imports(path: Path) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node


def _absolute_imports(path: Path) -> set[str]:
    """The top-level names of what the module imports absolutely."""
    names: set[str] = set()
    for node in _imports(path):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif not node.level:
            names.add(str(node.module).split(".")[0])
    return names


def _clew_imports(path: Path) -> set[str]:
    """The parts of clew (first-level names) that the module imports, relatively or not."""
    here = ("clew", *path.parent.parts)
    found: set[str] = set()
    for node in _imports(path):
        if isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        else:
            origin = list(here[: len(here) + 1 - node.level]) if node.level else []
            module = origin + (node.module.split(".") if node.module else [])
            targets = [[*module, alias.name] for alias in node.names]
        found |= {target[1] for target in targets if target[0] == "clew" and len(target) > 1}
    return found


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", *arguments], check=True, capture_output=True, text=True)
