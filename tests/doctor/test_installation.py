"""Versions against requirements; both packages of faiss at once."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from medplus.doctor.finding import Finding
from medplus.doctor.installation import examine_installation, faiss_packages
from medplus.doctor.trial import Trial


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Return a function that makes a package look installed, before what is."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, version: str) -> None:
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (folder / "METADATA").write_text(text)

    return write


def problems(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings if finding.mark == "problem"}


def require(monkeypatch: pytest.MonkeyPatch, *requirements: str) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: list(requirements))


def test_old_and_missing_packages_are_told_with_what_is_needed(
    install: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("somepackage", "1.4")
    require(monkeypatch, "somepackage>=1.5", "absent>=1")

    found = problems(list(examine_installation({})))

    assert found["somepackage"].text == "is 1.4, medplus needs >=1.5"
    assert "pip install --upgrade 'somepackage>=1.5'" in found["somepackage"].remedy
    assert found["absent"].text == "is not installed, medplus needs >=1"


def test_optional_package_counts_only_where_it_is_installed(
    install: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("somepackage", "1.0")
    extra = 'extra == "ray"'
    require(monkeypatch, f"somepackage>=2; {extra}", f"absent>=1; {extra}")

    assert set(problems(list(examine_installation({})))) == {"somepackage"}
    require(monkeypatch, f"somepackage>=1; {extra}", "absent>=1; sys_platform == 'no-such'")
    assert [f.text for f in examine_installation({}) if "met" in f.text] == ["1 requirement met"]


def test_both_packages_of_faiss_at_once_are_a_problem(
    install: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(monkeypatch)
    install("faiss-cpu", "1.12.0")
    install("faiss-gpu", "1.14.3")

    assert faiss_packages() == {"faiss-cpu": "1.12.0", "faiss-gpu": "1.14.3"}
    found = problems(list(examine_installation({})))["faiss"]
    assert "faiss-cpu 1.12.0 and faiss-gpu 1.14.3 are installed at once" in found.text
    assert "pip uninstall --yes faiss-cpu faiss-gpu" in found.remedy


def test_one_faiss_in_place_of_the_other_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    require(monkeypatch, "faiss-none>=1")

    [found] = [f for f in examine_installation({}) if f.subject == "faiss-none"]

    assert found.mark == "warning"


def test_package_that_cannot_be_imported_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    require(monkeypatch)

    trials = {"sklearn": Trial(error="ImportError: no"), "zarr": Trial()}
    found = problems(list(examine_installation(trials)))

    assert set(found) == {"sklearn"}
    assert "ImportError: no" in found["sklearn"].text
    assert found["sklearn"].remedy.endswith("scikit-learn")
