"""Checkpoints in two places, and which file is believed."""

from __future__ import annotations

import pickle
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from clew.storage import (
    Checkpoint,
    CheckpointWarning,
    DatabaseSession,
    DualPersistenceManager,
    UnknownReference,
    WorkflowRepository,
    WorkflowRun,
)

WAS_RUN = "this file is there when the pickle has run"


class _Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.mark, WAS_RUN)


@pytest.fixture
def run(db_session: DatabaseSession) -> WorkflowRun:
    return WorkflowRepository(db_session, "mine").create_run()


@pytest.fixture
def persistence(db_session: DatabaseSession, tmp_path: Path) -> DualPersistenceManager:
    return DualPersistenceManager(db_session, "mine", tmp_path / "work", key_file=tmp_path / "keys" / "checkpoint.key")


def test_a_context_comes_back_whole(
    persistence: DualPersistenceManager, db_session: DatabaseSession, run: WorkflowRun
) -> None:
    """What JSON cannot say comes from the file; the database has the snapshot, with the repr of it."""
    WorkflowRepository(db_session, "mine").create_step(run.id, id="step_1")
    context = {
        "plan": ["a", 1, None, True, 1.5],
        "seen": {1, 2},
        "path": Path("/a"),
        "pair": (1, 2),
        "nan": float("inf"),
    }
    checkpoint = persistence.save_checkpoint(run.id, "step_1", context)
    assert persistence.load_checkpoint(checkpoint.id) == context
    assert (checkpoint.checkpoint_type, checkpoint.step_id, checkpoint.session_id) == (
        *("step_complete", "step_1", "mine"),
    )
    assert checkpoint.context_snapshot == {
        "plan": ["a", 1, None, True, 1.5],
        "seen": {"__repr__": "{1, 2}"},
        "path": {"__repr__": "PosixPath('/a')"},
        "pair": [1, 2],
        "nan": {"__repr__": "inf"},
    }
    assert Path(checkpoint.pickle_file_path).is_relative_to(persistence.work_dir / "context")


def test_checkpoints_of_one_step_are_kept_apart(persistence: DualPersistenceManager, run: WorkflowRun) -> None:
    """Each has a file of its own; nothing else is left in the folder."""
    saved = [persistence.save_checkpoint(run.id, None, {"n": n}, "timed") for n in range(3)]
    assert [persistence.load_checkpoint(checkpoint.id) for checkpoint in saved] == [{"n": 0}, {"n": 1}, {"n": 2}]
    files = {str(path) for path in (persistence.work_dir / "context").iterdir()}
    assert files == {checkpoint.pickle_file_path for checkpoint in saved}


def test_only_the_user_may_read_the_key(persistence: DualPersistenceManager, run: WorkflowRun, tmp_path: Path) -> None:
    """The key and the files are readable by nobody else."""
    checkpoint = persistence.save_checkpoint(run.id, None, {})
    for path in (tmp_path / "keys" / "checkpoint.key", Path(checkpoint.pickle_file_path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["checkpoint.key"]


def test_the_key_is_in_the_users_data_folder(
    db_session: DatabaseSession, run: WorkflowRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Away from the work folder: whoever hands one over cannot hand over a key with it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home" / "data"))
    work = tmp_path / "work"
    checkpoint = DualPersistenceManager(db_session, "mine", work).save_checkpoint(run.id, None, {"a": 1})
    assert [path.name for path in (tmp_path / "home").rglob("*.key")] == ["checkpoint.key"]
    assert [path for path in work.rglob("*") if path.is_file()] == [Path(checkpoint.pickle_file_path)]
    assert DualPersistenceManager(db_session, "mine", work).load_checkpoint(checkpoint.id) == {"a": 1}


def test_a_changed_file_is_not_run(persistence: DualPersistenceManager, run: WorkflowRun, tmp_path: Path) -> None:
    """A pickle that somebody put in its place is refused unread; the snapshot is used, and a warning says so."""
    checkpoint = persistence.save_checkpoint(run.id, None, {"a": 1})
    Path(checkpoint.pickle_file_path).write_bytes(pickle.dumps(_Trap(tmp_path / "mark")))
    with pytest.warns(CheckpointWarning, match="not the file that was written here"):
        assert persistence.load_checkpoint(checkpoint.id) == {"a": 1}
    assert not (tmp_path / "mark").exists()


def test_a_trap_is_a_trap(tmp_path: Path) -> None:
    """The pickle that the other tests are sure was not run leaves its mark when it is."""
    pickle.loads(pickle.dumps(_Trap(tmp_path / "mark")))  # noqa: S301
    assert (tmp_path / "mark").read_text() == WAS_RUN


def test_a_file_of_another_manager_is_refused(
    persistence: DualPersistenceManager, db_session: DatabaseSession, run: WorkflowRun, tmp_path: Path
) -> None:
    """Another key proves nothing here, even where digest and file fit one another."""
    other = DualPersistenceManager(db_session, "mine", tmp_path / "work", key_file=tmp_path / "other.key")
    checkpoint = other.save_checkpoint(run.id, None, {"a": (1,)})
    with pytest.warns(CheckpointWarning):
        assert persistence.load_checkpoint(checkpoint.id) == {"a": [1]}
    assert other.load_checkpoint(checkpoint.id) == {"a": (1,)}


def test_a_file_of_another_checkpoint_is_refused(persistence: DualPersistenceManager, run: WorkflowRun) -> None:
    """A file proves its own checkpoint only."""
    first, second = (persistence.save_checkpoint(run.id, None, {"n": n}) for n in range(2))
    persistence.checkpoints.update_checkpoint(
        second.id, pickle_file_path=first.pickle_file_path, pickle_digest=first.pickle_digest
    )
    with pytest.warns(CheckpointWarning):
        assert persistence.load_checkpoint(second.id) == {"n": 1}


def test_a_missing_file_leaves_the_snapshot(persistence: DualPersistenceManager, run: WorkflowRun) -> None:
    """And a warning names the file."""
    checkpoint = persistence.save_checkpoint(run.id, None, {"a": 1})
    Path(checkpoint.pickle_file_path).unlink()
    with pytest.warns(CheckpointWarning, match=Path(checkpoint.pickle_file_path).name):
        assert persistence.load_checkpoint(checkpoint.id) == {"a": 1}


def test_a_checkpoint_without_a_digest_is_not_run(
    persistence: DualPersistenceManager, db_session: DatabaseSession, run: WorkflowRun, tmp_path: Path
) -> None:
    """A row that only names a file makes nobody run it."""
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(_Trap(tmp_path / "mark")))
    checkpoint = Checkpoint(run_id=run.id, context_snapshot={"a": 1}, pickle_file_path=str(tmp_path / "evil.pkl"))
    db_session.add(checkpoint)
    db_session.commit()
    with pytest.warns(CheckpointWarning):
        assert persistence.load_checkpoint(checkpoint.id) == {"a": 1}
    assert not (tmp_path / "mark").exists()


def test_what_cannot_be_pickled_is_in_the_snapshot(persistence: DualPersistenceManager, run: WorkflowRun) -> None:
    """A checkpoint is never lost for one value; a warning says that there is no file."""
    with pytest.warns(CheckpointWarning, match="cannot be pickled"):
        checkpoint = persistence.save_checkpoint(run.id, None, {"lock": threading.Lock(), "a": 1}, "emergency")
    assert checkpoint.pickle_file_path is None
    loaded = persistence.load_checkpoint(checkpoint.id)
    assert loaded["a"] == 1
    assert "lock" in loaded["lock"]["__repr__"]


def test_a_context_without_an_end_is_cut(persistence: DualPersistenceManager, run: WorkflowRun) -> None:
    """A context that holds itself is saved; its snapshot has a bottom."""
    context: dict[str, Any] = {"a": 1}
    context["self"] = context
    checkpoint = persistence.save_checkpoint(run.id, None, context)
    loaded = persistence.load_checkpoint(checkpoint.id)
    assert loaded["self"] is loaded
    assert "__repr__" in str(checkpoint.context_snapshot)


@pytest.mark.parametrize("value", ["\x00", "\ud800", {"\x00": 1}, {1: 2}, b"bytes", 1 << 200, "ü"])
def test_any_value_is_saved(persistence: DualPersistenceManager, run: WorkflowRun, value: Any) -> None:
    """Text that databases refuse, keys that are no text, numbers of any size."""
    checkpoint = persistence.save_checkpoint(run.id, None, {"value": value})
    assert persistence.load_checkpoint(checkpoint.id) == {"value": value}


def test_nothing_is_left_of_a_checkpoint_that_was_refused(
    persistence: DualPersistenceManager, db_session: DatabaseSession, run: WorkflowRun
) -> None:
    """An unknown step or run is named, and no file stays behind."""
    with pytest.raises(UnknownReference, match="'nowhere'"):
        persistence.save_checkpoint(run.id, "nowhere", {})
    with pytest.raises(UnknownReference, match="ab" * 16):
        persistence.save_checkpoint("ab" * 16, None, {})
    assert list((persistence.work_dir / "context").iterdir()) == []
    assert db_session.query(Checkpoint).count() == 0


def test_checkpoints_of_another_session_are_not_there(
    persistence: DualPersistenceManager, db_session: DatabaseSession, run: WorkflowRun, tmp_path: Path
) -> None:
    """Neither loaded nor saved."""
    checkpoint = persistence.save_checkpoint(run.id, None, {})
    theirs = DualPersistenceManager(db_session, "theirs", tmp_path / "work", key_file=tmp_path / "keys/checkpoint.key")
    with pytest.raises(UnknownReference, match=checkpoint.id):
        theirs.load_checkpoint(checkpoint.id)
    with pytest.raises(UnknownReference, match=run.id):
        theirs.save_checkpoint(run.id, None, {})
