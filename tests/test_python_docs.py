"""The examples of docs/python.md and of the docstrings run as they stand."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path
from types import ModuleType

import pytest

import medplus.metrics
import medplus.sklearn
from medplus.datasets.phantom import write_phantom

ROOT = Path(__file__).parents[1]


def test_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs/python.md"
    results = doctest.testfile(
        str(page),
        module_relative=False,
        optionflags=doctest.ELLIPSIS,
        parser=Ellipsed(),
    )
    assert results.attempted > 30
    assert results.failed == 0


class Ellipsed(doctest.DocTestParser):
    """Reads … as the three dots of doctest."""

    def parse(self, string, name="<string>"):
        return super().parse(string.replace("…", "..."), name)


MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "medplus").rglob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
}
SLOW = {
    f"medplus.{name}"
    for name in ["auditing.audit", "comparison", "packaging.build", "reporting.report"]
}


@pytest.fixture(scope="module")
def folder_with_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    write_phantom("breastmnist", 28, folder / "data", samples=200)
    return folder


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.extensive) if n in SLOW else n for n in sorted(MODULES)],
)
def test_examples_of_docstrings_run(
    name: str, folder_with_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder whose data/ has BreastMNIST; none needs that another ran before."""
    monkeypatch.chdir(folder_with_data)
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize("module", [medplus, medplus.metrics, medplus.sklearn])
def test_every_public_function_has_parameters_and_an_example(module: ModuleType) -> None:
    for name in set(module.__all__) - {"MedplusError", "__version__"}:
        found = getattr(module, name)
        told = inspect.getdoc(found) or ""
        if inspect.isfunction(found):
            assert all(parameter in told for parameter in inspect.signature(found).parameters), name
            assert ">>>" in told, name
