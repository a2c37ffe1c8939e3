"""The commands of docs/backbones.md and docs/offline.md do what they are there for."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch

from tests.backbones.hub import serve, use_hub

DOCS = Path(__file__).parents[2] / "docs"


def write_files(name: str, folder: Path) -> None:
    """Write the Python files that a page shows; their first line names them."""
    text = (DOCS / name).read_text()
    for file, source in re.findall(r"^```python\n# (\S+)\n(.*?)^```$", text, re.DOTALL | re.M):
        (folder / file).write_text(source)


def commands(name: str) -> list[list[str]]:
    """Return the arguments of every `medplus` in the blocks of a page."""
    blocks = re.findall(r"^```\n(.*?)^```$", (DOCS / name).read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    found = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("medplus ")]
    assert found
    return found


@pytest.mark.parametrize("page", ["backbones.md", "offline.md"])
def test_commands_of_the_page_work(
    page: str, cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(page, Path.cwd())
    torch.manual_seed(6)
    timm.models.save_for_hf(
        timm.create_model("resnet18"), tmp_path / "hub", safe_serialization=True
    )
    files = {
        f"/timm/resnet18.a1_in1k/resolve/main/{file}": (tmp_path / "hub" / file).read_bytes()
        for file in ("config.json", "model.safetensors")
    }
    with serve(files) as hub:
        use_hub(hub, tmp_path / "cache", monkeypatch)
        for arguments in commands(page):
            ran = cli(*arguments)
            assert ran.code == 0, ran.err
            assert ran.out
