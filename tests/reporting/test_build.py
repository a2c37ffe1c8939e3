"""A report on disk: whole or not at all, and nobody else's files are touched."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medplus.analysis.document import Document, analyse
from medplus.analysis.load import benchmark_of, published
from medplus.analysis.results.runs import read_runs
from medplus.atomic import temporary_folder
from medplus.errors import RunError
from medplus.lock import LockHeldError, hold
from medplus.reporting import build
from medplus.reporting.build import MANIFEST, PAGE, write_report
from tests.analysis.ledgers import write_record


@pytest.fixture(scope="module")
def analysis(new_folder: Callable[[], Path]) -> Document:
    """One run: the smallest that there is to write."""
    root = new_folder()
    write_record(root)
    return analyse(benchmark_of(read_runs(root), "here"))


@pytest.fixture(scope="module")
def whole(new_folder: Callable[[], Path]) -> tuple[Path, list[Path]]:
    """A report with all that belongs to it."""
    out = new_folder() / "report"
    return out, write_report(analyse(published()), out)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, fast_disk: None) -> None:
    """Write one figure of one byte, and a page of a few."""

    def write_figures(figures: object, folder: Path) -> list[Path]:
        folder.mkdir()
        (folder / "fig1.png").write_bytes(b"x")
        return [folder / "fig1.png"]

    monkeypatch.setattr(build, "write_figures", write_figures)
    monkeypatch.setattr(build, "render_page", lambda document, *_: document.benchmark.title)


def content(folder: Path) -> dict[str, bytes]:
    """Return all files under a folder, and folders that are empty."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b"folder"
        for path in folder.rglob("*")
        if path.is_file() or not any(path.iterdir())
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_all_that_belongs_to_a_report(whole: tuple[Path, list[Path]]) -> None:
    out, files = whole

    assert files[0] == out / PAGE
    assert {path.relative_to(out).as_posix() for path in files} | {MANIFEST} == set(content(out))
    assert all(path.stat().st_size for path in files)
    tables = {path.stem for path in files if path.suffix == ".csv"}
    assert tables >= {"benchmark", "ranking", "resolution_gains", "percentiles", "pairwise"}
    for stem in tables:
        assert {p.suffix for p in files if p.stem == stem} == {".csv", ".md", ".tex"}
    figures = {path.stem for path in files if path.suffix == ".png"}
    assert {name[:4] for name in figures} >= {"fig1", "fig2", "fig3", "fig4", "fig5"}
    for stem in figures:
        assert {p.suffix for p in files if p.stem == stem} == {".png", ".svg", ".pdf"}
    assert names(out.parent) == ["report"]
    assert 'href="tables/benchmark.csv"' in (out / PAGE).read_text(encoding="utf-8")


@pytest.mark.usefixtures("quick")
class TestFolder:
    """What may be replaced, and what happens when writing fails."""

    def test_folders_on_the_way_are_made(self, analysis: Document, tmp_path: Path) -> None:
        files = write_report(analysis, tmp_path / "a" / "b")

        assert files[0] == tmp_path / "a" / "b" / PAGE
        assert files[0].exists()

    def test_an_earlier_report_is_replaced(self, analysis: Document, tmp_path: Path) -> None:
        out = tmp_path / "out"
        write_report(analysis, out)
        before = content(out)
        stale = json.loads((out / MANIFEST).read_text())
        (out / "tables" / "stale.csv").write_text("of an earlier version")
        stale["files"].append("tables/stale.csv")
        (out / MANIFEST).write_text(json.dumps(stale))
        (out / PAGE).write_text("old")
        write_report(analysis, out)

        assert content(out) == before
        assert names(tmp_path) == ["out"]

    @pytest.mark.parametrize("name", ["notes.txt", "tables/mine.csv", "a/b", "empty/", "link"])
    @pytest.mark.parametrize("reported", [True, False])
    def test_what_is_foreign_is_never_deleted(
        self, name: str, reported: bool, analysis: Document, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        if reported:
            write_report(analysis, out)
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "link":
            path.symlink_to(tmp_path, target_is_directory=True)
        elif name.endswith("/"):
            path.mkdir()
        else:
            path.write_text("mine")
        before = content(out)
        with pytest.raises(RunError, match="not of a report") as error:
            write_report(analysis, out)

        assert content(out) == before
        assert name.partition("/")[0] in str(error.value)
        assert names(tmp_path) == ["out"]

    @pytest.mark.parametrize("manifest", ["{", "[]", "{}", '{"files": 3}', "\ufeff"])
    def test_a_damaged_manifest_makes_no_file_ours(
        self, manifest: str, analysis: Document, tmp_path: Path
    ) -> None:
        (tmp_path / MANIFEST).write_text(manifest)
        with pytest.raises(RunError, match="not of a report"):
            write_report(analysis, tmp_path)

        assert content(tmp_path) == {MANIFEST: manifest.encode()}

    def test_a_file_that_comes_meanwhile_is_not_deleted(
        self, analysis: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "out"
        write_report(analysis, out)

        def render_page(*arguments: Any) -> str:
            (out / "notes.txt").write_text("mine")
            return "new"

        monkeypatch.setattr(build, "render_page", render_page)
        with pytest.raises(RunError, match=r"not of a report \(notes.txt\)"):
            write_report(analysis, out)
        assert (out / "notes.txt").read_text() == "mine"
        assert (out / PAGE).read_text() == analysis.benchmark.title
        assert names(tmp_path) == ["out"]

    def test_what_a_killed_report_left_is_removed_and_two_at_once_are_refused(
        self, analysis: Document, tmp_path: Path
    ) -> None:
        with temporary_folder(tmp_path / "out") as left:
            (left / PAGE).write_text("half")
            shutil.copytree(left, left.with_name(f"{left.name}0"))  # as if nothing had ended it
        write_report(analysis, tmp_path / "out")
        assert names(tmp_path) == ["out"]
        with (
            hold(tmp_path / ".out.lock", "it"),
            pytest.raises(LockHeldError, match=r"the report .*out is in use by process"),
        ):
            write_report(analysis, tmp_path / "out")

    def test_another_report_that_comes_meanwhile_is_kept(
        self, analysis: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        removed = build.atomic.remove_folder

        def remove_folder(path: Path) -> None:
            removed(path)
            path.mkdir()
            (path / "theirs").write_text("theirs")

        write_report(analysis, tmp_path / "out")
        monkeypatch.setattr(build.atomic, "remove_folder", remove_folder)
        with pytest.raises(RunError, match="another process has just written there"):
            write_report(analysis, tmp_path / "out")
        assert content(tmp_path) == {"out/theirs": b"theirs"}

    @pytest.mark.parametrize("inside", ["", "report", "a/b"])
    def test_a_file_in_the_way(self, inside: str, analysis: Document, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.write_text("mine")
        with pytest.raises(RunError, match="file is a file; name a folder"):
            write_report(analysis, file / inside)

        assert content(tmp_path) == {"file": b"mine"}

    def test_a_link_is_kept_and_its_target_replaced(
        self, analysis: Document, tmp_path: Path
    ) -> None:
        write_report(analysis, tmp_path / "target")
        (tmp_path / "target" / PAGE).write_text("old")
        (tmp_path / "link").symlink_to("target")
        write_report(analysis, tmp_path / "link")

        assert (tmp_path / "target" / PAGE).read_text() == analysis.benchmark.title
        assert names(tmp_path) == ["link", "target"]
        assert (tmp_path / "link").is_symlink()

    @pytest.mark.parametrize(
        ("failure", "raised", "says"),
        [
            (OSError(errno.ENOSPC, "No space left on device"), RunError, "No space left"),
            (KeyboardInterrupt(), KeyboardInterrupt, "^$"),
            (ValueError("a bug"), ValueError, "a bug"),
        ],
    )
    @pytest.mark.parametrize("where", ["write_figures", "render_page", "write_tables"])
    @pytest.mark.parametrize("exists", [True, False])
    def test_a_failure_leaves_what_was_there(
        self, exists: bool, where: str, failure: BaseException, raised: type[BaseException],
        says: str, analysis: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        if exists:
            write_report(analysis, tmp_path / "out")
        before = content(tmp_path)

        def fail(*arguments: Any) -> None:
            raise failure

        monkeypatch.setattr(build, where, fail)
        with pytest.raises(raised, match=says):
            write_report(analysis, tmp_path / "out")
        assert content(tmp_path) == before

    def test_a_folder_that_cannot_be_written(
        self, analysis: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Root may write anywhere, so that a system call must play the read-only disk."""

        def mkdir(path: Path, *arguments: Any, **settings: Any) -> None:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        monkeypatch.setattr(Path, "mkdir", mkdir)
        with pytest.raises(RunError, match="out cannot be written: Permission denied; nothing was"):
            write_report(analysis, tmp_path / "out")
