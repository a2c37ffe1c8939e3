"""Eight processes at once: each thing is done once, all end, and all find the same."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest

from medplus.remotefile import Patience, RemoteFile, fetch
from tests.faults.warm import Command, Ended, Warm
from tests.faults.world import COMMANDS, NETWORK, leftovers, make_world, results, same

CROWD = 8
pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path: Path) -> Path:
    folder = tmp_path / "world"
    make_world(folder)
    return folder


def crowd(warm: Warm, words: tuple[str, ...], folder: Path) -> list[Ended]:
    ended = warm.together([Command((*words, "--json"), folder)] * CROWD)
    for one in ended:
        assert "Traceback" not in one.said, one.said
    return ended


def documents(ended: list[Ended]) -> list[dict]:
    """Return what each command printed on stdout: its last line, or all from the first brace."""
    return [json.loads(one.said[one.said.index("{") :]) for one in ended]


def test_eight_extractions_compute_each_chunk_once(
    warm: Warm, world: Path, tmp_path: Path, tell: Callable[[object], None]
) -> None:
    words = (*(NETWORK if NETWORK in word else word for word in COMMANDS["extract"]), "-q")
    make_world(tmp_path / "alone")
    assert warm(*words, folder=tmp_path / "alone").code == 0

    ended = crowd(warm, words, world)

    assert [one.code for one in ended] == [0] * CROWD, ended[0].said
    stores = [document["stores"][0] for document in documents(ended)]
    assert sum(store["chunks_computed"] for store in stores) == 4 + 2 + 2
    assert sum(store["status"] == "skipped" for store in stores) == CROWD - 1
    assert len({store["key"] for store in stores}) == 1
    assert results(world) == results(tmp_path / "alone")
    assert leftovers(world) == []
    tell("8 extractions at once: 8 chunks computed by one process, seven found them")


@pytest.mark.extensive
def test_eight_processes_fill_one_cache_once(
    warm: Warm, world: Path, tell: Callable[[object], None]
) -> None:
    words = [(*COMMANDS["extract"], "-v", "--store", f"store {i}") for i in range(CROWD)]

    ended = warm.together([Command(each, world) for each in words])

    assert [one.code for one in ended] == [0] * CROWD, ended[0].said
    assert sum(one.said.count("caching toy.npz") for one in ended) == 1
    assert leftovers(world) == []
    stores = [
        {name.split("/", 1)[1]: content for name, content in results(world).items() if of in name}
        for of in (f"store {i}/" for i in range(CROWD))
    ]
    assert all(store == stores[0] for store in stores) and len(stores[0]) > 0
    tell("8 processes on one dataset: its cache filled once, 8 equal stores")


@pytest.mark.parametrize("command", ["probe", pytest.param("knn", marks=pytest.mark.extensive)])
def test_eight_scorings_make_each_run_once(
    command: str, warm: Warm, world: Path, tell: Callable[[object], None]
) -> None:
    assert warm(*COMMANDS["extract"], folder=world).code == 0

    ended = crowd(warm, (*COMMANDS[command], "-q"), world)

    runs = [document["runs"] for document in documents(ended)]
    assert [one.code for one in ended] == [0] * CROWD
    # The time of making stands in the record: all have the same one, so it was made once.
    assert all(one == runs[0] for one in runs)
    assert len(runs[0]) == len(list((world / "runs").rglob("record.json")))
    assert leftovers(world) == []
    tell(f"8 × {command} at once: {len(runs[0])} runs, each made once, all eight told the same")


def _fetch(url: str, path: Path, digest: str, outcomes: multiprocessing.SimpleQueue) -> None:
    with httpx.Client() as client:
        outcomes.put(fetch(client, RemoteFile(url, path, digest), Patience()))


@pytest.mark.extensive
def test_eight_downloads_fetch_a_file_once(tmp_path: Path, tell: Callable[[object], None]) -> None:
    content = np.random.default_rng(0).bytes(20_000_000)
    (tmp_path / "server").mkdir()
    (tmp_path / "server/a.npz").write_bytes(content)
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            asked.append(self.path)

    handler = partial(Handler, directory=str(tmp_path / "server"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["medplus.remotefile"])
    outcomes = context.SimpleQueue()
    url = f"http://127.0.0.1:{server.server_port}/a.npz"
    arguments = (url, tmp_path / "a.npz", hashlib.md5(content).hexdigest(), outcomes)
    processes = [context.Process(target=_fetch, args=arguments) for _ in range(CROWD)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    server.shutdown()
    server.server_close()

    assert [process.exitcode for process in processes] == [0] * CROWD
    assert sorted(outcomes.get() for _ in processes) == ["downloaded"] + ["present"] * (CROWD - 1)
    assert len(asked) == 1
    assert (tmp_path / "a.npz").read_bytes() == content
    assert leftovers(tmp_path) == []
    tell("8 downloads of one file at once: fetched once, 7 found it there")


@pytest.mark.parametrize(
    ("command", "age_s"),
    # Extract and probe wait for a lock that is younger: it will expire.
    [
        ("extract", 600),
        *(
            pytest.param(*case, marks=pytest.mark.extensive)
            for case in (("probe", 600), ("finetune", 0), ("finetune", 600))
        ),
    ],
)
def test_the_lock_of_a_dead_owner_elsewhere_is_explained_and_then_taken_over(
    command: str, age_s: int, warm: Warm, world: Path, tell: Callable[[object], None]
) -> None:
    words = [NETWORK if NETWORK in word else word for word in COMMANDS[command]]
    if command != "extract":
        assert warm(*COMMANDS["extract"], folder=world).code == 0
    first = warm(*words, folder=world)
    assert first.code == 0, first.said
    results_before = results(world)
    [made] = {
        "extract": (world / "embeddings").glob("*/*/*.zarr"),
        "probe": list((world / "runs").glob("probe/*/*/*/*"))[:1],
        "finetune": list((world / "runs").glob("finetune/*/*/*/*"))[:1],
    }[command]
    for file in sorted(made.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    made.rmdir()
    lock = made.with_name(f"{made.name}.lock" if command == "extract" else f".{made.name}.lock")
    lock.write_text(json.dumps({"host": "a-host-long-gone", "pid": 4711, "since": 0}))
    os.utime(lock, (time.time() - age_s,) * 2)

    ended = warm(*words, folder=world)

    if age_s:
        assert ended.code == 0, ended.said
        assert same(results(world), results_before, 1e-5)
        assert leftovers(world) == []
    else:
        assert ended.code == 1
        assert "is in use by process 4711 on a-host-long-gone" in ended.said
        assert "if that process is certainly dead, delete" in ended.said and lock.name in ended.said
    what = "taken over" if age_s else "explained, with the remedy"
    tell(f"{command}: the lock of a dead host, {age_s} s old: {what}")
