"""Only what dead processes left is called so, and only that is removed."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pytest

from medplus import lock
from medplus.doctor import Places
from medplus.doctor.leftovers import examine_leftovers, remove_leftovers

STORE = "toy/28/net-0123abcd.zarr"
RUN = "probe/toy/28/net/seed1-0123abcd"
DEAD = json.dumps({"host": socket.gethostname(), "pid": 4194303, "since": 1.0})


def put(path: Path, text: str = "x", age_s: float = 7200.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    then = time.time() - age_s
    os.utime(path, (then, then))
    os.utime(path.parent, (then, then))
    return path


def warned(places: Places) -> set[str]:
    return {f.subject for f in examine_leftovers(places) if f.mark == "warning"}


def tree(root: Path) -> set[Path]:
    return set(root.rglob("*"))


LEFT = [
    "stores/toy/28/.net-0123abcd.zarr.tmp-77-0123abcd/zarr.json",
    f"stores/{STORE}/train/embeddings/c/0/.0.tmp-0123abcd",
    f"stores/{STORE}/.zarr.json.tmp-0123abcd",
    "runs/probe/toy/28/net/.seed1-0123abcd.tmp-77-0123abcd/record.json",
    "runs/finetune/toy/28/net/modern-0123abcd.partial/.last.safetensors.tmp-0123abcd",
    f"runs/{RUN}/evaluations/.toy-28-0123abcd.tmp-77-0123abcd/record.json",
    "runs/.sweep/failures/.job-0123abcd.json.tmp-0123abcd",
    "data/.medplus-cache/.breastmnist.tmp-77-0123abcd/train_images.npy",
    "data/.medplus-cache/breastmnist/.meta.json.tmp-0123abcd",
    "data/mine/.medplus-cache/.28.tmp-77-0123abcd/meta.json",
    "data/.breastmnist.npz.tmp-0123abcd",
    "caches/MEDPLUS_CACHE/.mine-0123abcd.tmp-77-0123abcd/meta.json",
]
LOCKS = [
    f"stores/{STORE}.lock",
    "runs/probe/toy/28/net/.seed1-0123abcd.lock",
    "data/.medplus-cache/breastmnist.lock",
    "data/mine/.medplus-cache/28.lock",
    "data/.octmnist_64.npz.lock",
    "caches/MEDPLUS_CACHE/mine-0123abcd.lock",
    "caches/MEDPLUS_CACHE/folder-0123abcd/28.lock",
]


def temporary(path: Path) -> Path:
    return path if ".tmp-" in path.name else path.parent


@pytest.mark.parametrize("name", LEFT)
def test_temporary_files_of_dead_writers_are_removed(
    name: str, places: Places, tmp_path: Path
) -> None:
    left = temporary(put(tmp_path / name))

    assert warned(places) == {str(left)}
    assert remove_leftovers(places) == ([left], [])
    assert not left.exists()
    assert left.parent.exists()
    assert warned(places) == set()


@pytest.mark.parametrize("name", LOCKS)
def test_stale_locks_are_removed(name: str, places: Places, tmp_path: Path) -> None:
    stale = put(tmp_path / name, DEAD)

    assert warned(places) == {str(stale)}
    assert remove_leftovers(places) == ([stale], [])
    assert not stale.exists()


@pytest.mark.parametrize("name", LOCKS)
def test_locks_that_are_held_stay(name: str, places: Places, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)

    with lock.hold(tmp_path / name, "it"):
        assert warned(places) == set()
        assert remove_leftovers(places) == ([], [])
        assert (tmp_path / name).exists()


GUARDED = {
    LEFT[0]: f"stores/{STORE}.lock",
    LEFT[1]: f"stores/{STORE}.lock",
    LEFT[3]: "runs/probe/toy/28/net/.seed1-0123abcd.lock",
    LEFT[4]: "runs/finetune/toy/28/net/.modern-0123abcd.lock",
    LEFT[7]: "data/.medplus-cache/breastmnist.lock",
    LEFT[9]: "data/mine/.medplus-cache/28.lock",
    LEFT[11]: "caches/MEDPLUS_CACHE/mine-0123abcd.lock",
}


@pytest.mark.parametrize(("name", "guard"), GUARDED.items())
def test_what_a_live_writer_is_at_stays(
    name: str, guard: str, places: Places, tmp_path: Path
) -> None:
    left = temporary(put(tmp_path / name))

    with lock.hold(tmp_path / guard, "it"):
        assert warned(places) == set()
        assert remove_leftovers(places) == ([], [])
    assert left.exists()


@pytest.mark.parametrize("name", LEFT)
def test_what_was_just_written_stays_for_an_hour(name: str, places: Places, tmp_path: Path) -> None:
    left = temporary(put(tmp_path / name, age_s=3000))

    assert remove_leftovers(places) == ([], [])
    assert left.exists()


@pytest.mark.parametrize(
    "name",
    [
        f"stores/{STORE}/zarr.json",
        "data/report.npz.part",
        "data/octmnist_64.npz.part",
        "runs/finetune/toy/28/net/modern-0123abcd.partial/last.safetensors",
        "runs/.hidden.tmp-notes",
    ],
)
def test_everything_else_stays(name: str, places: Places, tmp_path: Path) -> None:
    put(tmp_path / name, DEAD)
    before = tree(tmp_path)

    assert remove_leftovers(places) == ([], [])
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("text", "age_s"),
    [('{"host": "elsewhere", "pid": 1}', 0), ('[[package]]\nname = "numpy"\n', 7200)],
    ids=["young, of another host", "of another program"],
)
def test_lock_of_someone_else_stays(text: str, age_s: float, places: Places) -> None:
    theirs = put(places.stores / f"{STORE}.lock", text, age_s)

    assert remove_leftovers(places) == ([], [])
    assert theirs.exists()


def test_what_cannot_be_removed_is_told(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    left = put(places.data / ".breastmnist.npz.tmp-0123abcd")
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: Path("/proc/none such").stat())

    removed, [kept] = remove_leftovers(places)

    assert (removed, kept.subject, kept.group) == ([], str(left), "leftovers")
    assert kept.text.startswith("cannot be removed: ")


def test_links_are_neither_followed_nor_removed(places: Places, tmp_path: Path) -> None:
    outside = put(tmp_path / "outside/28/.net-0123abcd.zarr.tmp-77-0123abcd/zarr.json")
    note = put(tmp_path / "outside/note", DEAD)
    (places.stores / "toy").symlink_to(tmp_path / "outside")
    (places.stores / "other/28").mkdir(parents=True)
    (places.stores / "other/28/net-0123abcd.zarr.lock").symlink_to(note)
    (places.stores / "other/28/.net-0123abcd.zarr.tmp-77-0123abcd").symlink_to(outside.parent)
    before = tree(tmp_path)

    assert remove_leftovers(places) == ([], [])
    assert tree(tmp_path) == before
    assert note.read_text() == DEAD


def test_interrupted_download_can_be_gone_on_with_and_stays(places: Places) -> None:
    part = put(places.data / "octmnist_64.npz.part")

    [found] = examine_leftovers(places)

    assert (found.mark, found.subject) == ("warning", str(part))
    assert found.remedy.startswith("medplus download octmnist --size 64 --data-root ")
    assert remove_leftovers(places) == ([], [])


def test_part_of_a_download_that_is_finished_is_removed(places: Places) -> None:
    whole = put(places.data / "octmnist_64.npz")
    part = put(places.data / "octmnist_64.npz.part")

    assert remove_leftovers(places) == ([part], [])
    assert whole.exists()
