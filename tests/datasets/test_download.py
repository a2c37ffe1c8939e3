"""Downloads, from a local server that does what servers do wrong."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest

from medplus.datasets import download as module
from medplus.datasets.download import check_room, download, missing_files, official_files
from medplus.errors import DownloadError, UsageError
from medplus.remotefile import PART, Patience, RemoteFile, Stopped, fetch

CONTENT = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8).tobytes()
MD5 = hashlib.md5(CONTENT).hexdigest()
HASTY = Patience(stall_s=0.5, attempts=3, first_wait_s=0.01, longest_wait_s=0.02)


class Server(ThreadingHTTPServer):
    """Serves `CONTENT` under any name, each answer in the next of the given manners.

    Manners: ``well``, ``breaks`` (half of what is asked for, then the end), ``stalls``,
    ``ignores ranges``, ``wrong`` (other bytes), or a status code.
    """

    daemon_threads = True

    def __init__(self, *manners: str | int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.manners = list(manners)
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/files"

    def next_manner(self) -> str | int:
        return self.manners.pop(0) if self.manners else "well"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(CONTENT)))
        self.end_headers()

    def do_GET(self) -> None:
        asked = self.headers.get("range")
        self.server.ranges.append(asked)
        manner = self.server.next_manner()
        if isinstance(manner, int):
            self.send_response(manner)
            self.send_header("retry-after", "0")
            self.send_header("content-length", "0")
            self.end_headers()
            return
        content = CONTENT[::-1] if manner == "wrong" else CONTENT
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if manner == "ignores ranges":
            start = 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("content-length", str(len(content) - start))
        if start:
            self.send_header("content-range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        rest = content[start:]
        if manner in ("breaks", "stalls"):
            self.wfile.write(rest[: len(rest) // 2])
            if manner == "stalls":
                time.sleep(2)
            self.close_connection = True
            return
        self.wfile.write(rest)


@contextmanager
def serving(*manners: str | int) -> Iterator[Server]:
    server = Server(*manners)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def get(tmp_path: Path) -> Callable[..., str]:
    """Return a function that fetches the content from a server."""

    def run(server: Server, patience: Patience = HASTY, **more: object) -> str:
        remote = RemoteFile(f"{server.url}/a.npz", tmp_path / "a.npz", MD5)
        with httpx.Client(timeout=patience.stall_s) as client:
            return fetch(client, remote, patience, **more)

    return run


def whole(tmp_path: Path) -> bool:
    left = sorted(path.name for path in tmp_path.iterdir())
    return left == ["a.npz"] and (tmp_path / "a.npz").read_bytes() == CONTENT


def test_a_file_arrives_and_is_not_fetched_again(get: Callable, tmp_path: Path) -> None:
    with serving() as server:
        assert get(server) == "downloaded"
        assert whole(tmp_path)
        assert get(server) == "present"
        assert server.ranges == [None]


@pytest.mark.parametrize(
    "manners",
    [
        ["breaks"] * 5,  # more than the attempts: each brings some
        ["stalls"],
        [503, 429],
        [500, "breaks", 502, 504],
        ["breaks", "ignores ranges"],
    ],
    ids=str,
)
def test_what_a_server_does_wrong_is_tried_again(
    manners: list, get: Callable, tmp_path: Path
) -> None:
    with serving(*manners) as server:
        assert get(server) == "downloaded"
    assert whole(tmp_path)


def test_it_goes_on_where_it_broke_off(get: Callable, tmp_path: Path) -> None:
    with serving("breaks", 503, 503, 503) as server, pytest.raises(DownloadError) as caught:
        get(server)
    assert "after 3 attempts" in str(caught.value)
    kept = (tmp_path / f"a.npz{PART}").stat().st_size
    assert kept == len(CONTENT) // 2
    assert f"{kept:,} bytes are kept" in str(caught.value)
    with serving() as server:
        assert get(server) == "resumed"
        assert server.ranges == [f"bytes={kept}-"]
    assert whole(tmp_path)


def test_progress_adds_up_to_the_file_also_after_a_fresh_start(get: Callable) -> None:
    told: list[int] = []
    with serving("breaks", "breaks", "ignores ranges") as server:
        get(server, advance=told.append)
    assert sum(told) == len(CONTENT)
    assert min(told) < 0  # what a server sends anew is taken back


def test_a_part_of_another_file_is_thrown_away_once(get: Callable, tmp_path: Path) -> None:
    (tmp_path / f"a.npz{PART}").write_bytes(b"of an older release")
    with serving() as server:
        get(server)
        assert server.ranges == ["bytes=19-", None]
    assert whole(tmp_path)


@pytest.mark.parametrize("size", [len(CONTENT), len(CONTENT) + 10])
def test_a_part_that_is_complete_or_too_long(size: int, get: Callable, tmp_path: Path) -> None:
    (tmp_path / f"a.npz{PART}").write_bytes((CONTENT + bytes(10))[:size])
    with serving() as server:
        assert get(server) == "resumed"
    assert whole(tmp_path)


def test_a_wrong_file_is_refused_and_not_kept(get: Callable, tmp_path: Path) -> None:
    with serving("wrong") as server, pytest.raises(DownloadError, match="is not the right file"):
        get(server)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [403, 404, 410])
def test_what_will_not_be_there_is_told_at_once(code: int, get: Callable, tmp_path: Path) -> None:
    with serving(code) as server:
        with pytest.raises(DownloadError, match=f"the server answers {code}"):
            get(server)
        assert len(server.ranges) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_stop_keeps_what_has_arrived(get: Callable, tmp_path: Path) -> None:
    stop = threading.Event()
    with serving() as server, pytest.raises(Stopped):
        get(server, advance=lambda n: stop.set() if n else None, stop=stop)
    assert 0 < (tmp_path / f"a.npz{PART}").stat().st_size < len(CONTENT)
    with serving() as server:
        assert get(server) == "resumed"
    assert whole(tmp_path)


def test_two_at_once_share_one_download(get: Callable, tmp_path: Path) -> None:
    outcomes: list[str] = []
    with serving("stalls") as server:
        threads = [threading.Thread(target=lambda: outcomes.append(get(server))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.ranges == [None, f"bytes={len(CONTENT) // 2}-"]
    assert sorted(outcomes) == ["downloaded", "present", "present"]
    assert whole(tmp_path)


# --- the official files -----------------------------------------------------------------------


def test_there_are_48_files_with_the_names_and_digests_of_medmnist() -> None:
    from medmnist import INFO

    from medplus.datasets.catalog import FLAGS

    files = official_files(FLAGS, [28, 64, 128, 224], "root")
    assert len(files) == 48
    for file in files:
        suffix = "" if file.size == 28 else f"_{file.size}"
        assert file.md5 == INFO[file.dataset][f"MD5{suffix}"]
        assert file.url == INFO[file.dataset][f"url{suffix}"]
        assert file.path == Path("root") / f"{file.dataset}{suffix}.npz"


def test_a_phantom_is_as_large_as_the_bound_says(tmp_path: Path) -> None:
    from medplus.datasets.phantom import write_phantom

    path = write_phantom("breastmnist", 28, tmp_path)
    with np.load(path) as arrays:
        names = [f"{s}_{kind}" for s in ("train", "val", "test") for kind in ("images", "labels")]
        uncompressed = sum(arrays[name].nbytes for name in names)
    [file] = official_files(["breastmnist"], [28])
    assert file.most_bytes == uncompressed


def test_a_mirror_and_what_is_refused(cli: Callable) -> None:
    [file] = official_files(["breastmnist"], [64], base_url="http://mirror/medmnist/")
    assert file.url == "http://mirror/medmnist/breastmnist_64.npz"
    with pytest.raises(UsageError, match="--base-url"):
        official_files(["breastmnist"], [28], base_url="ftp://mirror")
    with pytest.raises(UsageError, match="has no size 32"):
        official_files(["breastmnist"], [32])
    with pytest.raises(UsageError, match="did you mean 'breastmnist'"):
        official_files(["brestmnist"], [28])
    assert "give one of them" in cli("download", "breastmnist", "--list", "--verify").err


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `CONTENT` be every official file."""
    plain = module.catalog.info

    def info(flag: str):
        from dataclasses import replace

        return replace(plain(flag), md5=dict.fromkeys((28, 64, 128, 224), MD5))

    monkeypatch.setattr(module.catalog, "info", info)


def test_one_that_fails_does_not_keep_the_others(official: None, tmp_path: Path) -> None:
    with serving(404) as server:
        files = official_files(["breastmnist", "bloodmnist"], [28, 64], tmp_path, server.url)
        done = download(files, workers=1, patience=HASTY)
    assert [one.outcome for one in done] == [None, "downloaded", "downloaded", "downloaded"]
    assert "404" in done[0].error
    assert missing_files(files) == [files[0]]


def test_a_full_disk_is_told_before_anything_is_fetched(
    official: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 10**8))
    check_room(official_files(["breastmnist"], [28], tmp_path), tmp_path)
    with pytest.raises(DownloadError, match=r"0\.1 GB left, and 16\.. GB are needed"):
        check_room(official_files(["pathmnist"], [224], tmp_path), tmp_path)


# --- the command ------------------------------------------------------------------------------


def test_the_command_fetches_lists_and_verifies(cli: Callable, official: None) -> None:
    with serving("breaks") as server:
        arguments = ["breastmnist,bloodmnist", "--size", "28", "--base-url", server.url]
        assert cli("download", *arguments, "--dry-run").code == 0
        assert server.ranges == []
        ran = cli("download", *arguments, "--json")
        assert [row["status"] for row in ran.document["files"]] == ["downloaded"] * 2
        assert [row["bytes"] for row in ran.document["files"]] == [len(CONTENT)] * 2
    assert Path("data/bloodmnist.npz").read_bytes() == CONTENT
    assert cli("download", "breastmnist", "--verify").out == "data/breastmnist.npz: official\n"
    Path("data/breastmnist.npz").write_bytes(b"damaged")
    ran = cli("download", "breastmnist", "--size", "28,64", "--verify")
    assert ran.code == 1
    assert "data/breastmnist.npz: not the official file\n" in ran.out
    assert "2 of 2 files" in ran.err
    ran = cli("download", "all", "--size", "all", "--list")
    assert len(ran.out.splitlines()) == 49


def test_the_command_tells_what_failed(cli: Callable, official: None) -> None:
    with serving(404) as server:
        ran = cli("download", "breastmnist", "--base-url", server.url, "--json")
    assert ran.code == 1
    assert ran.document["files"][0]["status"] == "failed"
    assert "the server answers 404" in ran.err
    assert list(Path("data").iterdir()) == []


def test_ctrl_c_ends_it_quickly_and_the_next_call_goes_on(tmp_path: Path) -> None:
    with serving("stalls") as server:
        arguments = ["-m", "medplus", "download", "breastmnist", "--base-url", server.url]
        process = subprocess.Popen(
            [sys.executable, *arguments, "--stall", "20"],
            cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        part = tmp_path / "data" / f"breastmnist.npz{PART}"
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not (part.exists() and part.stat().st_size > 10**6):
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Interrupted" in said
    assert part.stat().st_size > 10**6
    assert not list((tmp_path / "data").glob(".*lock"))
