"""Hooks of `mkdocs build`: pages that lie elsewhere, and tutorials that are run."""

import posixpath
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))
from tutorial import executed

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "configs/README.md": "configs.md",
    "embeddings/README.md": "store-format.md",
}
"""Pages outside docs/, and what they are on the site."""
RUN = ("tutorials/", "api/commands.md")
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
FOLDERS: list[tempfile.TemporaryDirectory[str]] = []
"""Of the tutorials; they are removed when the build ends, also by an error."""


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie elsewhere, and run the tutorials."""
    for source, page in ELSEWHERE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=relinked(text, source, page)))
    for file in [f for f in files.documentation_pages() if f.src_uri.startswith(RUN)]:
        FOLDERS.append(tempfile.TemporaryDirectory(prefix="medplus-docs-"))
        folder = Path(FOLDERS[-1].name)
        print(f"Running {file.src_uri}", flush=True)
        try:
            text = executed(file.content_string, folder)
        except subprocess.CalledProcessError as error:
            raise PluginError(f"docs/{file.src_uri}: {error}") from error
        files.remove(file)
        files.append(File.generated(config, file.src_uri, content=text))
        for path in made(text, folder):
            uri = posixpath.join(posixpath.dirname(file.src_uri), path.relative_to(folder))
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links to the repository's files lead to their pages."""
    uri = page.file.src_uri
    return markdown if uri in ELSEWHERE.values() else relinked(markdown, f"docs/{uri}", uri)


def made(text: str, folder: Path) -> set[Path]:
    """Return the files that a tutorial made and shows; of a page what lies beside it, too."""
    shown = {folder / link[3] for link in LINK.finditer(text)}
    found = {path for path in shown if path.is_file()}
    for page in [path for path in found if path.name == "index.html"]:
        beside = page.parent.rglob("*")
        found |= {path for path in beside if path.is_file() and path.suffix != ".md"}
    return found


def relinked(text: str, source: str, page: str) -> str:
    """Return the text with its links as the site has them; a file that it lacks loses its link."""

    def link(match: re.Match[str]) -> str:
        image, name, target, anchor = match.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        there = ELSEWHERE.get(path) or (path[5:] if path.startswith("docs/") else None)
        if there is None:
            return name
        there = posixpath.relpath(there, posixpath.dirname(page) or ".")
        return f"{image}[{name}]({there}{anchor or ''})"

    return LINK.sub(link, text)
