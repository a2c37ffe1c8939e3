"""What a release is made of says the same everywhere; `make release-check` builds and tries it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from medplus import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def citation() -> dict:
    return yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_every_file_of_the_package_that_is_no_python_is_declared_as_its_data():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["medplus"]
    declared = {path for pattern in patterns for path in (ROOT / "medplus").glob(pattern)}
    there = {
        path
        for path in (ROOT / "medplus").rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    assert there == declared


def test_the_citation_has_the_version_the_licence_and_the_papers_of_the_readme(citation):
    assert citation["version"] == __version__
    assert citation["license"] == PROJECT["project"]["license"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {paper["journal"] for paper in citation["references"]} == set(
        re.findall(r"journal = \{(.+?)\}", readme)
    )
    for paper in citation["references"]:
        assert paper["title"] in " ".join(readme.split())


def test_the_changelog_has_an_entry_for_the_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## [{__version__}] - " in changelog


def test_workflows_run_targets_that_exist_and_actions_of_a_major_version():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.M))
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
            for step in job["steps"]:
                assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/none@v1"))
                for target in re.findall(r"^make ([\w-]+)$", step.get("run", ""), re.M):
                    assert target in targets, f"{path.name} runs make {target}"


def test_the_image_is_made_of_what_reaches_the_engine_and_runs_as_nobody_special():
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    kept = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.M))
    copied = [
        name
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.M)
        for name in line.split()
    ]
    assert set(copied) == kept
    assert all((ROOT / name).exists() for name in copied)
    users = re.findall(r"^USER (\d+)", dockerfile, re.M)
    assert users and users[-1] != "0"
