"""The commands of docs/backbones.md and docs/offline.md do what they are there for."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save

from tests.backbones.hub import serve, use_hub

DOCS = Path(__file__).parents[2] / "docs"


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
    torch.manual_seed(6)
    path = "/timm/resnet18.a1_in1k/resolve/main/model.safetensors"
    with serve({path: save(timm.create_model("resnet18").state_dict())}) as hub:
        use_hub(hub, tmp_path / "cache", monkeypatch)
        for arguments in commands(page):
            ran = cli(*arguments)
            assert ran.code == 0, ran.err
            assert ran.out
