"""A local server that plays the hub's file endpoint, and processes that know no other hub."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

NOWHERE = "http://127.0.0.1:9"
COMMIT = "0" * 40
CODES = {403: "GatedRepo", 404: "EntryNotFound"}


class Hub(ThreadingHTTPServer):
    """Serves `files`, by path; all else is missing. With `status` it only ever answers that.

    What stands in `faults` it answers first, once each.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes], status: int | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.status = status
        self.faults: list[int] = []
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        hub: Hub = self.server
        hub.asked.append(f"{self.command} {self.path}")
        # As of the hub, a file can be asked for by its branch or by its commit.
        path = self.path.partition("?")[0].replace(f"/resolve/{COMMIT}/", "/resolve/main/")
        body = hub.files.get(path, b"")
        fault = hub.faults.pop(0) if hub.faults else hub.status
        status = fault or (200 if body else 404)
        self.send_response(status)
        if status == 200:
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        else:
            body = b"{}"
            if status in CODES:
                self.send_header("X-Error-Code", CODES[status])
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def serve(files: dict[str, bytes], status: int | None = None) -> Iterator[Hub]:
    """Serve files until the block ends."""
    hub = Hub(files, status)
    thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


def environment(endpoint: str, home: Path, **more: str) -> dict[str, str]:
    """Return an environment whose only hub is at an address, and whose caches are in a folder."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith(("HF_", "HUGGINGFACE"))
    }
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "TORCH_HOME": str(home)}
    return {**kept, **own, **more}


def use_hub(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process know no other hub: what its client made of the variables when imported."""
    from huggingface_hub import constants

    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def medplus(*arguments: object, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `medplus` in a process of its own: the hub's client reads its address once."""
    return subprocess.run(
        [sys.executable, "-m", "medplus", *map(str, arguments)],
        env=env, cwd=cwd, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
