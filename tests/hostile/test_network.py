"""Nothing reaches the network but what is meant to: downloads, and pretrained weights."""

from __future__ import annotations

import ast
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import medplus
from medplus.reporting import build
from tests.analysis.ledgers import write_record
from tests.hostile.makers import write_npz

_REACHING = {
    "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto",
    "socket.bind", "urllib.Request", "http.client.connect",
}  # fmt: skip
_seen: list[tuple[str, object]] | None = None


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _seen is not None and event in _REACHING:
        _seen.append((event, arguments[-1]))


sys.addaudithook(_hook)  # it cannot be taken away again; outside the fixture it does nothing


@pytest.fixture
def reached() -> Iterator[list[tuple[str, object]]]:
    """Every attempt to reach the network, from Python or from C, as it is made."""
    global _seen
    _seen = []
    yield _seen
    _seen = None


def test_an_attempt_would_be_seen(reached):
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", 9), timeout=1)
    assert {event for event, _ in reached} >= {"socket.connect", "socket.getaddrinfo"}


def test_commands_that_are_no_downloads_reach_nothing(cli, reached, tmp_path, monkeypatch):
    """The quickstart's own tests refuse connections, too, and train networks."""
    write_npz(tmp_path / "toy.npz")
    data = ["--dataset", "toy.npz", "--backbone", "pixels"]
    (tmp_path / "grid.yaml").write_text(
        "datasets: toy.npz\nsizes: 8\nbackbones: pixels\nseeds: 1\nprotocols: {knn: {k: 1}}\n"
    )
    commands = [
        ["extract", *data],
        ["knn", *data, "--k", "3"],
        ["probe", *data, "--epochs", "1", "--seed", "1"],
        ["store", "ls"],
        ["store", "verify"],
        ["datasets"],
        ["sweep", "grid.yaml", "--dry-run"],
        ["download", "--list"],
    ]
    for command in commands:
        ran = cli(*command)
        assert ran.code in (0, 2), (command, ran.err)
        assert reached == [], command
    monkeypatch.setattr(build, "write_figures", lambda *_, **__: [])
    for seed in (1, 2):
        write_record(tmp_path / "others", seed=seed)
    assert cli("report", "others", "--out", "report").code == 0
    assert reached == []


MAY_REACH = {
    "backbones/servers.py": "medplus backbones --fetch; --weights pretrained: is the hub there?",
    "datasets/download.py": "medplus download",
    "remotefile.py": "medplus download",
    "sweep/engines/ray.py": "medplus sweep --engine ray: is the cluster there?",
}
"""The modules that open connections themselves, and for whom; timm fetches weights by itself."""


def _reaches(tree: ast.AST) -> bool:
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = [f"{node.value.id}.{node.attr}"]
        elif isinstance(node, ast.Attribute) and node.attr == "load_state_dict_from_hf":
            names = ["huggingface_hub.load"]
        for name in names:
            if name.split(".")[0] in ("httpx", "requests", "aiohttp", "ftplib", "smtplib"):
                return True
            if name in ("socket.create_connection", "socket.socket", "urllib.request.urlopen",
                        "huggingface_hub.load", "huggingface_hub.hf_hub_download",
                        "huggingface_hub.snapshot_download"):  # fmt: skip
                return True
    return False


def test_only_these_modules_open_connections():
    root = Path(medplus.__file__).parent
    found = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if _reaches(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == set(MAY_REACH)
