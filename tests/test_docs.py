"""The site's pages: all of them are found, links lead somewhere, and tutorials run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

import medplus
from medplus.cli.main import medplus as group

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
RUN = [*sorted(DOCS.glob("tutorials/*.md")), DOCS / "api/commands.md"]
ELSEWHERE = {f"{name}.md" for name in ["index", "changelog", "contributing", "security"]}
ELSEWHERE |= {"configs.md", "store-format.md"}


def listed(entry: object) -> list[str]:
    """The pages of mkdocs.yml's nav."""
    if isinstance(entry, str):
        return [entry]
    children = entry.values() if isinstance(entry, dict) else entry
    return [page for child in children for page in listed(child)]


def anchors(page: Path) -> set[str]:
    """As Python-Markdown and GitHub both make them of a heading."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", h.lower()).strip()) for h in headings}


def test_every_page_is_listed_once():
    pages = listed(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert len(pages) == len(set(pages))
    there = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert set(pages) == there | ELSEWHERE


@pytest.mark.parametrize(
    "page",
    [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "configs/README.md"],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_links_lead_to_files_and_headings(page):
    links = re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text())
    for target, anchor in links:
        there = page.parent / target if target else page
        if page in RUN and there.suffix != ".md":
            continue  # the tutorial makes it
        assert there.exists(), f"{page}: {target}"
        if anchor and there.suffix == ".md" and not anchor.startswith("medplus."):
            assert anchor in anchors(there), f"{page}: {target}#{anchor}"


def test_the_reference_has_every_public_name_and_command():
    shown = re.findall(r"^::: (\S+)$", "".join(p.read_text() for p in DOCS.glob("api/*.md")), re.M)
    assert {f"medplus.{name}" for name in medplus.__all__} - {"medplus.__version__"} <= set(shown)
    assert len(shown) == len(set(shown))
    commands = re.findall(r"^\$ medplus (\S+) --help$", RUN[-1].read_text(), re.M)
    assert set(commands) == set(group.list_commands(click.Context(group)))


@pytest.mark.parametrize(
    "page",
    [
        page if page.stem == "index" else pytest.param(page, marks=pytest.mark.extensive)
        for page in RUN
    ],
    ids=lambda page: page.stem,
)
def test_tutorials_run(page, tmp_path):
    command = [sys.executable, ROOT / ".ci/tutorial.py", page, tmp_path]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for made in re.findall(r"\]\((?!https?:|\.\.)([^)#]*\.(?:png|svg|html))\)", printed):
        assert (tmp_path / made).is_file(), made


def test_a_tutorial_shows_what_was_printed_and_says_what_was_cut(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```console cut=1,1\n$ seq 5\n$ pwd\n```\n\n```python\nprint(6 * 7)\n```\n")
    command = [sys.executable, ROOT / ".ci/tutorial.py", page, tmp_path]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    cut = "… (3 lines are left out here)"
    assert f"$ seq 5\n1\n{cut}\n5\n$ pwd\n/home/you\n" in printed
    assert "```text\n42\n```" in printed
    page.write_text("```console\n$ ls nothing\n```\n")
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1
