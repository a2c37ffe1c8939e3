"""`medplus sweep` as a user runs it: a grid, its plan, its end, and what goes wrong on the way."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GRID = """
datasets: [toy.npz, other.npz]
backbones: pixels
seeds: [1, 2]
protocols:
  knn: {k: [1, 3]}
  probe: {epochs: 2}
  finetune: {recipe: modern, epochs: 2, batch_size: 16}
exclude:
  - {datasets: other.npz, protocols: finetune}
"""
N_JOBS, N_STORES, N_RUNS = 8, 2, 4 + 4 + 2


@pytest.fixture
def grid(write_npz: Callable, tmp_path: Path) -> Path:
    """Write a grid and its data into the working folder."""
    write_npz("toy", folder=tmp_path)
    write_npz("other", folder=tmp_path, seed=1, classes=3)
    path = tmp_path / "grid.yaml"
    path.write_text(GRID)
    return path


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the local engine work in this process: processes of its own are tested elsewhere."""
    from medplus.sweep.engines.local import LocalEngine
    from tests.sweep.here import Here

    monkeypatch.setattr(LocalEngine, "start", Here.start)


def records(runs: Path) -> dict[str, dict[str, Any]]:
    """Return what determines and is the result of every run, by its place."""
    found = {}
    for path in runs.rglob("record.json"):
        record = json.loads(path.read_text())
        for name in ("seconds", "cost", "created", "path", "training", "environment", "seal"):
            record.pop(name, None)
        record.get("store", {}).pop("path", None)
        found[str(path.parent.relative_to(runs))] = record
    return found


def embeddings(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("c/**/*") if p.is_file()}


def test_plan_run_and_plan_again(cli: Callable, grid: Path, here: None, leftovers: Callable):
    planned = cli("sweep", grid, "--dry-run", "--json").document
    assert [row["kind"] for row in planned["work"]] == ["extract", "knn", "probe", "finetune"]
    assert [row["runs"] for row in planned["work"]] == [N_STORES, 4, 4, 2]
    assert sum(row["left"] for row in planned["work"]) == N_JOBS
    assert all(row["seconds_left"] > 0 and row["bytes_left"] > 0 for row in planned["work"])
    assert not (grid.parent / "runs").exists()

    ran = cli("sweep", grid, "--json")

    assert ran.code == 0
    done = ran.document
    assert sum(row["finished"] for row in done["work"]) == N_JOBS
    assert (done["totals"]["stores"], done["totals"]["runs"]) == (N_STORES, N_RUNS)
    assert done["failed"] == done["running"] == []
    assert done["totals"]["seconds"] > 0 and done["totals"]["peak_memory_bytes"] > 0
    assert len(records(grid.parent / "runs")) == N_RUNS
    assert f"{N_JOBS} jobs to do" in ran.err and f"[{N_JOBS}/{N_JOBS}] finished" in ran.err
    assert leftovers(grid.parent) == []

    again = cli("sweep", grid)
    assert again.code == 0 and "2 stores and 10 runs are finished" in again.out
    assert again.err == ""
    assert "nothing is left to do" in cli("sweep", grid, "--status").out


def test_a_worker_by_itself_does_the_grid(cli: Callable, fails: Callable, grid: Path):
    fails("sweep", grid, "--worker", "--workers", 2, code=2, says=("--worker is one worker",))

    ran = cli("sweep", grid, "--worker", "--json")

    assert ran.code == 0 and ran.document["totals"]["runs"] == N_RUNS
    assert ran.err.count("finished ") == N_JOBS
    assert cli("sweep", grid, "--worker").err == ""


def test_flags_make_a_grid_or_take_a_part_of_one(cli: Callable, fails: Callable, grid: Path):
    def work(*arguments: Any) -> dict[str, int]:
        rows = cli("sweep", *arguments, "--dry-run", "--json").document["work"]
        return {row["kind"]: row["runs"] for row in rows}

    flags = ("--dataset", "toy.npz,other.npz", "--backbone", "pixels", "--seed", "1,2,3")
    assert work(*flags) == {"extract": 2, "knn": 2, "probe": 6}
    assert work(*flags, "--protocol", "finetune") == {"finetune": 6}
    part = (grid, "--dataset", "toy.npz", "--seed", 2)
    assert work(*part) == {"extract": 1, "knn": 2, "probe": 1, "finetune": 1}
    assert work(grid, "--protocol", "finetune") == {"finetune": 2}
    fails("sweep", grid, "--size", 64, code=2, says=("no '64' among the grid's sizes",))
    fails("sweep", "--dataset", "toy.npz", code=2, says=("GRID", "--backbone"))


def test_a_budget_runs_what_fits_and_says_what_is_left(cli: Callable, grid: Path, here: None):
    planned = cli("sweep", grid, "--dry-run", "--budget", "5.2s").out
    assert "the budget reaches about 4: 2 extract, 2 knn" in planned

    ran = cli("sweep", grid, "--budget", "1s")

    assert ran.code == 0 and "0 stores and 0 runs are finished" in ran.out
    assert f"{N_JOBS} jobs are left (2 extract, 2 knn, 2 probe, 2 finetune; about" in ran.out
    assert "the same command goes on" in ran.out
    done = cli("sweep", grid, "--budget", "10m", "--json")
    assert done.document["totals"]["runs"] == N_RUNS
    ends = [line.split()[2] for line in done.err.splitlines() if "finished" in line]
    assert ends.index("finetune") > max(i for i, kind in enumerate(ends) if kind == "probe")


def test_feature_of_a_grid_is_what_is_extracted(cli: Callable, grid: Path, here: None):
    document = GRID.replace("pixels", "[test_vit, test_resnet]").replace("k: [1, 3]", "k: 1")
    document = document.replace("[toy.npz, other.npz]", "toy.npz").partition("  probe")[0]
    grid.write_text(document + "weights: none\nextract: {feature: cls+avg}\n")

    ran = cli("sweep", grid, "--json").document

    [failure] = ran["failed"]
    assert failure["name"] == "extract toy test_resnet random cls+avg"
    assert "has no class token" in failure["message"]
    [record] = records(grid.parent / "runs").values()
    assert (record["backbone"], record["spec"]["feature"]) == ("test_vit", "cls+avg")
    [store] = (grid.parent / "embeddings").rglob("test_vit-*.zarr")
    assert json.loads((store / "test/embeddings/zarr.json").read_text())["shape"][1] == 2 * 64
    rows = {row["kind"]: row for row in cli("sweep", grid, "--dry-run", "--json").document["work"]}
    assert (rows["extract"]["finished"], rows["knn"]["finished"]) == (1, 1)


def test_a_failure_is_told_at_the_end_and_can_be_repeated(
    cli: Callable, grid: Path, here: None, monkeypatch: pytest.MonkeyPatch
):
    whole = (grid.parent / "other.npz").read_bytes()
    (grid.parent / "other.npz").write_bytes(whole[:400])

    ran = cli("sweep", grid)

    assert ran.code == 1
    assert "failed: extract other pixels:" in ran.out and "other.npz is not a readable" in ran.out
    assert "2 jobs wait for what has failed" in ran.out
    assert "--retry-failed" in ran.out and "Traceback" not in ran.out + ran.err
    assert "1 stores and 6 runs are finished" in ran.out

    (grid.parent / "other.npz").write_bytes(whole)
    status = cli("sweep", grid, "--status", "--json").document
    assert [failure["name"] for failure in status["failed"]] == ["extract other pixels"]
    assert cli("sweep", grid).code == 1  # not tried again by itself
    ran = cli("sweep", grid, "--retry-failed", "--json")
    assert ran.code == 0 and ran.document["totals"]["runs"] == N_RUNS


def test_ctrl_c_ends_with_130_and_keeps_what_is_finished(
    cli: Callable, grid: Path, here: None, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(*arguments: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("medplus.heads.knn.search.search", interrupted)
        ran = cli("sweep", grid)

    assert ran.code == 130
    assert "Interrupted: finished work is kept" in ran.err and "Traceback" not in ran.err
    assert not list((grid.parent / "runs" / ".sweep" / "claims").iterdir())
    assert cli("sweep", grid, "--json").document["totals"]["runs"] == N_RUNS


def test_a_bad_grid_is_refused_by_line(fails: Callable, grid: Path):
    grid.write_text(GRID.replace("epochs: 2}", "epoch: 2}"))
    says = "line 7: unknown key 'epoch'; did you mean 'ep"
    fails("sweep", "grid.yaml", code=2, says=("grid.yaml", says))


def test_bad_requests(fails: Callable, grid: Path, monkeypatch: pytest.MonkeyPatch):
    fails("sweep", "absent.yaml", code=2, says=("absent.yaml does not exist",))
    fails("sweep", grid, "--engine", "local", "--partition", "gpu", code=2,
          says=("--partition means nothing to --engine local; it is for slurm",))  # fmt: skip
    fails("sweep", grid, "--detach", code=2, says=("--detach means nothing",))
    Path("toy.npz").unlink()
    fails("sweep", grid, code=1, says=("toy.npz", "missing", "'exclude'"))


def test_a_folder_that_cannot_be_written(fails: Callable, grid: Path):
    Path("a file").touch()
    fails("sweep", grid, "--runs", "a file/runs", code=1, says=("a file", "choose another --runs"))


def test_a_finished_grid_needs_no_torch(cli: Callable, grid: Path, here: None):
    cli("sweep", grid)
    code = (
        "import sys; from medplus.cli import main\n"
        "for more in ([], ['--status']):\n"
        f"  try: main(['sweep', {str(grid)!r}, '--json', *more])\n"
        "  except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'timm', 'ray'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=grid.parent, timeout=60)


@pytest.mark.extensive
@pytest.mark.slow
def test_killed_twice_a_sweep_ends_as_if_it_had_not_been(
    cli: Callable, grid: Path, here: None, leftovers: Callable
):
    """`kill -9` of the whole process group at random moments; real worker processes."""
    cli("sweep", grid, "--runs", "whole/runs", "--store", "whole/stores")
    command = [
        sys.executable, "-m", "medplus", "sweep", str(grid), "--workers", "2", "--json",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    moments = random.Random()
    for _ in range(2):
        process = subprocess.Popen(
            command, cwd=grid.parent, env=environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            process.wait(moments.uniform(3, 12))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    ended = subprocess.run(
        command, cwd=grid.parent, env=environment, capture_output=True, text=True, timeout=200
    )

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["totals"]["runs"] == N_RUNS
    assert records(grid.parent / "runs") == records(grid.parent / "whole" / "runs")
    whole = embeddings(grid.parent / "whole" / "stores")
    assert embeddings(grid.parent / "embeddings") == whole and len(whole) == 6 * 4
    assert leftovers(grid.parent) == []
