"""Hooks of `mkdocs build`: pages that lie elsewhere, and tutorials that are run."""

import os
import posixpath
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

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
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie elsewhere, and run the tutorials."""
    for source, page in ELSEWHERE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=relinked(text, source, page)))
    for file in [f for f in files.documentation_pages() if f.src_uri.startswith("tutorials/")]:
        folder = Path(tempfile.mkdtemp(prefix="medplus-docs-"))
        print(f"Running {file.src_uri} in {folder}", flush=True)
        text = executed(Path(str(file.abs_src_path)).read_text(encoding="utf-8"), folder)
        files.remove(file)
        files.append(File.generated(config, file.src_uri, content=text))
        for made in {match[3] for match in LINK.finditer(text) if (folder / match[3]).is_file()}:
            files.append(
                File.generated(config, f"tutorials/{made}", abs_src_path=str(folder / made))
            )
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links to the repository's files lead to their pages."""
    uri = page.file.src_uri
    return markdown if uri in ELSEWHERE.values() else relinked(markdown, f"docs/{uri}", uri)


def relinked(text: str, source: str, page: str) -> str:
    """Return the text with its links as the site has them; a file that it lacks loses its link."""

    def link(match: re.Match[str]) -> str:
        image, name, target, anchor = match.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        there = ELSEWHERE.get(path) or (path[5:] if path.startswith("docs/") else None)
        if there is None:
            return name
        return f"{image}[{name}]({os.path.relpath(there, posixpath.dirname(page) or '.')}{anchor or ''})"

    return LINK.sub(link, text)
