"""Planning: a grid and what lies on disk decide what is left; nothing else does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Collection
from itertools import product
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from medplus.cli.sweeptables import work_of
from medplus.config import FinetuneRecipe
from medplus.datasets.sources import load_dataset
from medplus.embeddings.info import StoreInfo, read_info, write_info
from medplus.jsonfile import digest_of
from medplus.run.ledger import save_run
from medplus.spec import ExtractSpec
from medplus.sweep.claims import Claimant
from medplus.sweep.conduct import Sweep
from medplus.sweep.estimate import Estimator
from medplus.sweep.grid import Grid, read_grid
from medplus.sweep.inventory import Inventory
from medplus.sweep.job import Job, Place
from medplus.sweep.plan import Plan, make_plan
from tests.records import make_record

TAGS = {"resnet18": "resnet18.a1_in1k", "vgg16": "vgg16.tv_in1k", "pixels": "pixels"}
KINDS = ("extract", "knn", "probe", "finetune")
WEIGHTS = "f" * 64


class World:
    """A folder with data, stores and runs, written as the real thing writes them."""

    def __init__(self, root: Path, data: Path, store_info: Callable[..., StoreInfo]) -> None:
        self.root, self.data = root, data
        self._store_info = store_info

    def grid(self, **document: Any) -> Grid:
        """Return a grid; by default toy.npz with resnet18, all protocols and two seeds."""
        standard: dict[str, Any] = {
            "datasets": self.path("toy"),
            "backbones": "resnet18",
            "weights": "none",
            "seeds": [1, 2],
            "protocols": {"knn": {"k": [1, 3]}, "probe": {"epochs": 2}, "finetune": {"epochs": 1}},
        }
        path = self.root / "grid.yaml"
        path.write_text(yaml.safe_dump({**standard, **document}))
        return read_grid(path)

    def path(self, name: str) -> str:
        return str(self.data / f"{name}.npz")

    @property
    def place(self) -> Place:
        folders = (str(self.data), str(self.root / "store"), str(self.root / "runs"))
        return Place(*folders, device="cpu")

    def plan(self, grid: Grid, failed: Collection[str] = ()) -> Plan:
        estimator = Estimator(self.data, (inventory := Inventory(grid, self.place)).past_jobs)
        return make_plan(grid, inventory, estimator, failed)

    def digest(self, dataset: str) -> str:
        path = self.data / f"{dataset}.npz"
        return load_dataset(str(path)).digest if path.exists() else "d" * 64

    def store(
        self, dataset: str = "toy", size: int = 8, backbone: str = "resnet18", *,
        complete: bool = True, weights: str = "none", fit: str = "pad", **key: Any,
    ) -> Path:  # fmt: skip
        fields = {
            "dataset_digest": self.digest(dataset), "weights_sha256": WEIGHTS,
            "tag": TAGS.get(backbone, backbone), **key,
        }  # fmt: skip
        info = self._store_info(
            (12, 6, 7), 512, dataset=dataset, size=size, backbone=backbone, weights=weights,
            fit=fit, **fields,
        )  # fmt: skip
        info = info.model_copy(update={"complete": complete})
        name = f"{backbone}-{info.key[:8]}.zarr"
        path = self.root / "store" / dataset / str(size) / name
        path.mkdir(parents=True, exist_ok=True)
        write_info(path, info)
        return path

    def run(
        self, protocol: str, dataset: str = "toy", size: int = 8, backbone: str = "resnet18",
        **changes: Any,
    ) -> Path:  # fmt: skip
        """Write the record of a run; changes go to whatever part of it has the field."""
        made: dict[str, Any] = {
            "protocol": protocol, "dataset": dataset, "size": size, "backbone": backbone,
            "tag": TAGS.get(backbone, backbone), "weights": "none", "weights_sha256": WEIGHTS,
            "precision": "fp32", "dtype": "float32", "fit": "pad", "feature": "prelogits",
            "dataset_digest": self.digest(dataset), "classes": 2, "seconds": 1.5,
            "cost": {"seconds": 1.5, "device": "CPU (1 threads)", "shared_by": 1},
            "created": "2026-01-01T00:00:00Z",
        }  # fmt: skip
        recipe: dict[str, Any] = {}
        if protocol == "knn":
            own = {"k": 1, "metric": "l2", "vote": "majority"}
            config = own.copy()
        else:
            own = {"seed": 1, "lr": 1e-4, "weight_decay": 0.01}
            config = {**own, "epochs": 2, "batch_size": 64, "patience": 5}
        if protocol == "finetune":
            recipe = FinetuneRecipe(epochs=1).model_dump()
            config = {"seed": 1, "devices": 1, "recipe": recipe}
        made |= own
        for field, value in changes.items():
            homes = [part for part in (made, config, recipe) if field in part]
            assert homes, field
            for part in homes:
                part[field] = value
        run_id = f"run{digest_of({**made, 'config': config})[:8]}"
        record = make_record(self.root / "runs", run_id=run_id, config=config, **made)
        save_run(record, {})
        return Path(record.path)

    def finish(self) -> None:
        """Write all that the default grid makes."""
        self.store()
        for k in (1, 3):
            self.run("knn", k=k)
        for protocol, seed in product(("probe", "finetune"), (1, 2)):
            self.run(protocol, seed=seed)


@pytest.fixture(scope="module")
def data(new_folder, write_npz):
    folder = new_folder()
    write_npz("toy", n=(12, 6, 7), folder=folder)
    write_npz("other", n=(12, 6, 7), seed=1, folder=folder)
    return folder


@pytest.fixture(scope="module")
def new_world(new_folder, data, store_info):
    return lambda: World(new_folder(), data, store_info)


@pytest.fixture
def world(new_world):
    return new_world()


def standing(plan: Plan) -> dict[str, list[tuple[str, int, int]]]:
    """Return state, runs done and runs of every job, by kind."""
    found: dict[str, list[tuple[str, int, int]]] = {}
    for job in plan.jobs:
        entry = (job.state, job.runs_done, job.n_runs)
        found.setdefault(job.kind, []).append(entry)
    return found


def left(plan: Plan) -> set[str]:
    """Return the kinds of jobs that are left."""
    return {job.kind for job in plan.jobs if job.state == "left"}


def test_nothing_on_disk_means_that_all_is_left(world):
    plan = world.plan(world.grid())
    assert standing(plan) == {
        "extract": [("left", 0, 1)],
        "knn": [("left", 0, 2)],
        "probe": [("left", 0, 2)],
        "finetune": [("left", 0, 1)] * 2,
    }
    assert (plan.records, plan.stores) == ((), ())
    assert sorted(len(part.jobs) for part in plan.cells) == [1, 1, 3]
    assert all(part.store is None for part in plan.cells)


def test_some_seeds_are_a_part_of_a_probe_and_cost_what_is_left_of_it(world):
    world.store()
    before = world.plan(world.grid())
    world.run("probe", seed=2, cost={"seconds": 0.001})  # too short to tell anything of rates
    plan = world.plan(world.grid())
    assert standing(plan)["probe"] == [("left", 1, 2)]
    [whole], [half] = ([p for p in q.jobs if p.kind == "probe"] for q in (before, plan))
    assert half.nbytes == whole.nbytes // 2
    assert half.seconds == pytest.approx(whole.seconds / 2)


def test_learning_rates_and_decays_of_a_probe_are_runs(world):
    world.store()
    world.run("probe", lr=0.5, weight_decay=0.0)
    world.run("probe", lr=0.5, weight_decay=0.0, seed=2)
    grid = world.grid(
        protocols={"probe": {"epochs": 2, "lr": [0.5, 0.1], "weight_decay": [0.0, 0.01, 0.1]}}
    )
    assert standing(world.plan(grid))["probe"] == [("left", 2, 12)]


def test_the_same_run_twice_on_disk_counts_once(world):
    world.store()
    for created in ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"):
        world.run("knn", k=1, created=created)
    assert standing(world.plan(world.grid()))["knn"] == [("left", 1, 2)]


OTHERWISE: list[tuple[dict[str, Any], set[str]]] = [
    ({}, set()),
    ({"extract": {"precision": "fp32", "dtype": "float32"}}, set()),
    ({"fit": "pad"}, set()),
    ({"fit": "resize"}, {"extract", "knn", "probe", "finetune"}),
    ({"weights": "pretrained"}, {"extract", "knn", "probe", "finetune"}),
    ({"backbones": "vgg16"}, {"extract", "knn", "probe", "finetune"}),
    ({"backbones": "resnet18.a1_in1k"}, set()),
    ({"backbones": "resnet18.tv_in1k"}, {"extract", "knn", "probe", "finetune"}),
    ({"extract": {"precision": "bf16"}}, {"extract", "knn", "probe"}),
    ({"extract": {"dtype": "float16"}}, {"extract", "knn", "probe"}),
    ({"extract": {"feature": "cls"}}, {"extract", "knn", "probe"}),
    ({"extract": {"feature": "prelogits"}}, set()),
    ({"seeds": [1, 3]}, {"probe", "finetune"}),
    ({"protocols": {"knn": {"k": 5}}}, {"knn"}),
    ({"protocols": {"knn": {"k": 3, "metric": "cosine"}}}, {"knn"}),
    ({"protocols": {"knn": {"k": 3, "vote": "distance"}}}, {"knn"}),
    ({"protocols": {"knn": {"k": 3, "backend": "faiss"}}}, set()),
    ({"protocols": {"probe": {"epochs": 3}}}, {"probe"}),
    ({"protocols": {"probe": {"epochs": 2, "lr": 1e-3}}}, {"probe"}),
    ({"protocols": {"probe": {"epochs": 2, "weight_decay": 0.1}}}, {"probe"}),
    ({"protocols": {"probe": {"epochs": 2, "patience": 9}}}, {"probe"}),
    ({"protocols": {"finetune": {"epochs": 2}}}, {"finetune"}),
    ({"protocols": {"finetune": {"epochs": 1, "lr": 1e-3}}}, {"finetune"}),
    ({"protocols": {"finetune": {"epochs": 1, "trainable": "head"}}}, {"finetune"}),
    ({"protocols": {"finetune": {"epochs": 1, "precision": "bf16"}}}, {"finetune"}),
    ({"protocols": {"finetune": {"epochs": 1, "precision": "auto"}}}, set()),
    ({"protocols": {"finetune": {"epochs": 1, "batch_size": 64}}}, set()),
    ({"protocols": {"finetune": {"epochs": 1, "batch_size": 32}}}, {"finetune"}),
    ({"protocols": {"finetune": {"epochs": 1, "batch_size": "auto"}}}, set()),
]


@pytest.mark.parametrize(("changes", "expected"), OTHERWISE)
def test_only_what_the_grid_asks_for_counts_as_finished(changes, expected, world):
    world.finish()
    grid = world.grid(**changes)
    asked = {kind for kind in KINDS[1:] if getattr(grid.protocols, kind) is not None}
    if asked & {"knn", "probe"}:
        asked.add("extract")
    assert left(world.plan(grid)) == expected & asked


ALL = ("knn", "probe", "finetune")
FACTS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"dataset_digest": "e" * 64}, ALL),
    ({"precision": "bf16"}, ALL),
    ({"devices": 2}, ("finetune",)),
]


@pytest.mark.parametrize(
    ("protocol", "fact"), [(protocol, fact) for fact, where in FACTS for protocol in where], ids=str
)
def test_record_of_something_else_is_not_finished(protocol, fact, world):
    grid = world.grid(
        seeds=[1],
        extract={"precision": "fp32"},
        protocols={
            "knn": {"k": 1},
            "probe": {"epochs": 2},
            "finetune": {"epochs": 1},
        },
    )
    world.store()
    folder = world.run(protocol)
    assert protocol not in left(world.plan(grid))
    (folder / "record.json").unlink()
    world.run(protocol, **fact)
    assert protocol in left(world.plan(grid))


@pytest.mark.parametrize(
    "fact",
    [
        {"dataset_digest": "e" * 64}, {"precision": "bf16"}, {"complete": False},
    ],
    ids=str,
)  # fmt: skip
def test_store_of_something_else_is_not_finished(fact, world):
    world.store(**fact)
    plan = world.plan(world.grid(extract={"precision": "fp32"}))
    assert "extract" in left(plan)
    assert plan.stores == ()
    world.store()
    assert "extract" not in left(world.plan(world.grid(extract={"precision": "fp32"})))


def test_feature_is_told_by_the_jobs_that_have_it(world):
    plan = world.plan(world.grid(backbones=["resnet18", "pixels"], extract={"feature": "avg"}))
    names = {job.name for job in plan.jobs}
    assert {f"{kind} toy resnet18 random avg" for kind in ("extract", "knn", "probe")} < names
    assert {"extract toy pixels", "knn toy pixels", "finetune toy resnet18 random seed1"} < names
    assert not any("avg" in name for name in names if "finetune" in name)


@pytest.mark.parametrize("last", ["fp32", "bf16"])
def test_of_several_stores_the_last_is_used(last, world):
    paths = {precision: world.store(precision=precision) for precision in ("fp32", "bf16")}
    info = read_info(paths[last])
    write_info(paths[last], info.model_copy(update={"created": "2024-01-01T00:00:01Z"}))
    plan = world.plan(world.grid())
    stores = {part.store for part in plan.cells if part.jobs[0].kind != "finetune"}
    assert stores == {str(paths[last])}


@pytest.mark.parametrize("changes", [{"fit": "resize"}, {"weights": "pretrained"}], ids=str)
def test_what_is_made_otherwise_is_another_job(changes, world):
    """Or a failure of the one would stand for the other."""
    jobs, others = (ids(world.plan(grid), *KINDS) for grid in (world.grid(), world.grid(**changes)))
    assert len(jobs) == len(others) == 5
    assert set(jobs).isdisjoint(others)


def test_file_that_was_replaced_by_another_of_its_name_makes_all_left(
    world, new_folder, write_npz, data
):
    world.finish()
    world.data = new_folder()
    write_npz("toy", n=(12, 6, 7), seed=5, folder=world.data)
    assert left(world.plan(world.grid())) == set(KINDS)
    (world.data / "toy.npz").write_bytes((data / "toy.npz").read_bytes())
    assert left(world.plan(world.grid())) == set()


def test_finished_runs_count_also_where_the_data_are_not_at_hand(world, new_folder):
    world.finish()
    world.data = new_folder()
    plan = world.plan(world.grid())
    assert left(plan) == set()
    plan.check_data(world.data)


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[]", b"\xff"])
def test_damaged_record_is_left_and_does_not_stop_planning(content, world):
    world.finish()
    [folder, _] = sorted((world.root / "runs/probe").glob("*/*/*/*"))
    (folder / "record.json").write_bytes(content)
    assert standing(world.plan(world.grid()))["probe"] == [("left", 1, 2)]


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[]", b"\xff"])
def test_damaged_store_is_left_and_does_not_stop_planning(content, world):
    (world.store() / "zarr.json").write_bytes(content)
    assert standing(world.plan(world.grid()))["extract"] == [("left", 0, 1)]


def test_run_under_way_or_hidden_is_not_finished(world):
    for name in (".run.tmp", ".hidden"):
        folder = world.run("probe")
        folder.rename(folder.with_name(name))
    assert standing(world.plan(world.grid()))["probe"] == [("left", 0, 2)]


def test_removed_store_is_not_made_again_where_its_heads_are_finished(world):
    world.finish()
    (next((world.root / "store").glob("*/*/*.zarr")) / "zarr.json").unlink()
    plan = world.plan(world.grid())
    assert (left(plan), plan.cells) == (set(), ())


def test_removed_store_is_made_again_before_the_head_that_needs_it(world):
    world.finish()
    (next((world.root / "store").glob("*/*/*.zarr")) / "zarr.json").unlink()
    [folder, _] = sorted((world.root / "runs/knn").glob("*/*/*/*"))
    (folder / "record.json").unlink()
    plan = world.plan(world.grid())
    [part] = plan.cells
    assert [job.kind for job in part.jobs] == ["extract", "knn"]
    assert part.store is None


def ids(plan: Plan, *kinds: str) -> list[str]:
    return [job.id for job in plan.jobs if job.kind in kinds]


def test_heads_of_a_failed_extraction_are_not_tried(world):
    grid = world.grid()
    failed = ids(world.plan(grid), "extract")
    plan = world.plan(grid, failed)
    assert standing(plan)["extract"] == [("failed", 0, 1)]
    assert standing(plan)["knn"] == [("left", 0, 2)]
    assert {job.kind for part in plan.cells for job in part.jobs} == {"finetune"}


def test_failed_head_is_not_tried_and_the_others_are(world):
    grid = world.grid()
    failed = ids(world.plan(grid), "knn")
    plan = world.plan(grid, failed)
    assert plan.count("failed") == 1
    assert [[job.kind for job in part.jobs] for part in plan.cells if len(part.jobs) > 1] == [
        ["extract", "probe"]
    ]


def test_with_a_limit_the_cheapest_protocol_on_everything_comes_first(world):
    world.store(backbone="vgg16")
    plan = world.plan(world.grid(backbones=["vgg16", "resnet18"]))
    parts = plan.within(1e9)
    kinds = [[job.kind for job in part.jobs] for part in parts]
    assert kinds == [
        ["knn"], ["extract", "knn"], ["probe"], ["extract", "probe"], *[["finetune"]] * 4
    ]  # fmt: skip
    assert [part.seconds for part in parts[-4:]] == sorted(part.seconds for part in parts[-4:])
    limit = parts[1].seconds
    assert all(part.seconds <= limit for part in plan.within(limit)) and not plan.within(0)
    in_parts = {job.id for part in parts for job in part.jobs}
    assert in_parts == {job.id for cell in plan.cells for job in cell.jobs}
    assert sum(job.seconds for job in plan.reached(100)) <= 100


def test_sweep_knows_what_has_failed(world):
    sweep = Sweep(world.grid(), world.place)
    sweep.claims.prepare()
    job = sweep.plan().jobs[0]
    with Claimant(sweep.claims, "me") as me:
        assert me.claim(job)
        me.fail(ValueError("no"))
    assert [p.id for p in sweep.plan().jobs if p.state == "failed"] == [job.id]
    sweep.claims.tidy({job.id})
    assert sweep.plan().count("failed") == 0


def test_pixels_are_the_same_whatever_weights_fit_and_precision(world):
    world.store(backbone="pixels", fit="native")
    world.run("knn", backbone="pixels", k=3, fit="native")
    grid = world.grid(
        backbones="pixels", weights="pretrained", fit="pad", extract={"precision": "bf16"},
        protocols={"knn": {"k": 3}},
    )  # fmt: skip
    assert left(world.plan(grid)) == set()


class TestFinetunedBackbone:
    """A fine-tuned run as a backbone goes by its name and the digest of its weights."""

    @pytest.fixture(scope="class")
    @staticmethod
    def trained(write_run, new_folder):
        root = new_folder()
        folders = {}
        for seed in (1, 2):
            folder, _ = write_run("resnet18", 8, "pad", seed, root / f"weights{seed}", run_id="r")
            folders[seed] = folder
        return folders

    @staticmethod
    def sha256(folder):
        from medplus.backbones.finetuned import read_description

        return read_description(folder).trained_sha256

    def grid(self, world, folder):
        return world.grid(
            backbones=str(folder), protocols={"knn": {"k": 1}, "finetune": {"epochs": 1}}, seeds=[1]
        )

    def test_its_heads_and_networks_count(self, world, trained):
        name, digest = "resnet18@r", self.sha256(trained[1])
        made = {"weights": "pretrained", "fit": "native", "weights_sha256": digest}
        world.store(backbone=name, **made)
        for protocol in ("knn", "finetune"):
            world.run(protocol, backbone=name, **made)
        plan = world.plan(self.grid(world, trained[1]))
        assert left(plan) == set()
        assert {job.spec.weights for job in plan.jobs} == {"pretrained"}

    def test_those_of_other_weights_of_its_name_do_not(self, world, trained):
        name, digest = "resnet18@r", self.sha256(trained[2])
        world.store(backbone=name, weights="/x", weights_sha256=digest)
        world.run("knn", backbone=name, weights="/x", weights_sha256=digest)
        world.run("finetune", backbone=name, weights="/x", weights_sha256=digest)
        assert left(world.plan(self.grid(world, trained[1]))) == {"extract", "knn", "finetune"}


def test_store_of_another_dataset_in_the_folder_does_not_stop_planning(world):
    """'a b' and 'a_b' share a folder, since a blank cannot stand in its name."""
    path = world.store("a_b")
    plan = world.plan(world.grid(datasets=[world.path("a b")]))
    assert plan.count("left") == 5
    assert path.exists()


@st.composite
def sweeps(draw: st.DrawFn) -> dict[str, Any]:
    """A grid, and which of its stores and runs are finished; failures by position."""

    def some(values: list[Any]) -> list[Any]:
        return draw(st.lists(st.sampled_from(values), min_size=1, unique=True))

    datasets, sizes = some(["toy", "other", "breastmnist"]), some([28, 64])
    backbones, seeds, ks = some(list(TAGS)), some([1, 2, 3]), some([1, 3, 5])
    protocols = some(["knn", "probe", "finetune"])
    cells = [
        (dataset, size, backbone)
        for dataset in datasets
        for size in (sizes if dataset == "breastmnist" else [8])
        for backbone in backbones
    ]
    excluded = draw(st.sets(st.sampled_from(list(product(backbones, protocols))), max_size=2))
    runs = [
        (cell, protocol, number)
        for cell, protocol in product(cells, protocols)
        if (cell[2], protocol) not in excluded
        for number in (ks if protocol == "knn" else seeds)
    ]
    assume(runs)  # a grid of nothing is refused
    done = {run for run in runs if draw(st.booleans())} if draw(st.booleans()) else set(runs)
    return {
        "datasets": datasets, "sizes": sizes, "backbones": backbones, "seeds": seeds, "ks": ks,
        "protocols": protocols, "excluded": excluded, "runs": runs, "done": done,
        "stores": {cell for cell in cells if draw(st.booleans())},
        "failed": draw(st.sets(st.integers(0, 30), max_size=3)),
    }  # fmt: skip


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(sweep=sweeps())
def test_plan_of_any_grid_and_any_part_of_it_on_disk(sweep, new_world):
    world = new_world()
    recipes = {"knn": {"k": sweep["ks"]}, "probe": {"epochs": 2}, "finetune": {"epochs": 1}}
    grid = world.grid(
        datasets=[n if n == "breastmnist" else world.path(n) for n in sweep["datasets"]],
        sizes=sweep["sizes"],
        backbones=sweep["backbones"],
        seeds=sweep["seeds"],
        protocols={protocol: recipes[protocol] for protocol in sweep["protocols"]},
        exclude=[{"backbones": b, "protocols": p} for b, p in sweep["excluded"]],
    )
    for cell in sweep["stores"]:
        world.store(*cell)
    for cell, protocol, number in sweep["done"]:
        world.run(protocol, *cell, **{"k" if protocol == "knn" else "seed": number})
    everything = [job.id for job in world.plan(grid).jobs]
    failed = {everything[i] for i in sweep["failed"] if i < len(everything)}
    plan = world.plan(grid, failed)

    # Every run of the grid belongs to one job, and every job to the grid.
    assert len(set(everything)) == len(everything)
    jobs = {}
    for job in plan.jobs:
        spec = job.spec
        dataset, size, backbone = spec.dataset, spec.size, spec.backbone
        cell = (Path(dataset).stem, size or 8, backbone)
        seed = job.options["seed"] if job.kind == "finetune" else None
        jobs[cell, job.kind, seed] = job
    heads = {(cell, p) for cell, p, _ in sweep["runs"] if p != "finetune"}
    expected = {(cell, "extract", None) for cell, _ in heads}
    expected |= {(cell, protocol, None) for cell, protocol in heads}
    expected |= {(cell, p, seed) for cell, p, seed in sweep["runs"] if p == "finetune"}
    assert set(jobs) == expected

    for (cell, kind, seed), job in jobs.items():
        if kind == "extract":
            needed = any(c == cell and p != "finetune" for c, p, _ in _undone(sweep))
            finished = cell in sweep["stores"] or not needed
        else:
            asked = [r for r in sweep["runs"] if r[:2] == (cell, kind) and seed in (None, r[2])]
            assert job.n_runs == len(asked)
            assert job.runs_done == len(sweep["done"].intersection(asked))
            finished = sweep["done"].issuperset(asked)
        state = "finished" if finished else "failed" if job.id in failed else "left"
        assert job.state == state
        assert (job.seconds > 0) == (job.state != "finished")

    # Every job that is left stands in one cell, but for heads whose extraction has failed.
    blocked = {
        cell for (cell, kind, _), p in jobs.items() if kind == "extract" and p.state == "failed"
    }
    to_do = {
        job.id
        for (cell, kind, _), job in jobs.items()
        if job.state == "left" and (kind == "finetune" or cell not in blocked)
    }
    in_cells = [job.id for part in plan.cells for job in part.jobs]
    assert sorted(in_cells) == sorted(to_do)

    estimates = {job.id: job.seconds for job in plan.jobs}
    for part in plan.cells:
        kinds = [job.kind for job in part.jobs]
        assert len({job.spec for job in part.jobs}) == 1
        assert kinds == ["finetune"] or (kinds == sorted(kinds, key=KINDS.index))
        assert part.seconds == pytest.approx(sum(estimates[job.id] for job in part.jobs))
        # Heads either find their store, or make it first.
        assert kinds == ["finetune"] or (kinds[0] == "extract") == (part.store is None)
    assert [part.seconds for part in plan.cells] == sorted(
        (part.seconds for part in plan.cells), reverse=True
    )

    again = world.plan(grid, failed)
    assert (again.jobs, again.cells) == (plan.jobs, plan.cells)


def _undone(sweep: dict[str, Any]) -> list[Any]:
    return [run for run in sweep["runs"] if run not in sweep["done"]]


def test_rows_count_jobs_runs_and_what_is_left():
    def job(kind: Any, state: Any, n: int, done: int, seconds: float = 0.0, nbytes: int = 0) -> Job:
        spec = ExtractSpec("breastmnist", 28, "pixels", "none")
        return Job(kind, spec, {"seed": 1}, n, done, state, seconds, nbytes)

    jobs = (
        job("finetune", "left", 1, 0, 100.0, 1000),
        job("extract", "finished", 1, 1),
        job("extract", "left", 1, 0, 10.0, 50),
        job("extract", "failed", 1, 0, 20.0, 70),
        job("knn", "finished", 4, 4),
        job("knn", "left", 4, 1, 3.0, 5),
        job("knn", "failed", 4, 2, 7.0, 9),
    )
    names = (
        "kind", "runs", "runs_finished", "jobs", "finished", "failed", "left", "seconds_left",
        "bytes_left",
    )  # fmt: skip
    assert work_of(Plan(jobs, (), (), (), cast(Estimator, None))) == [
        dict(zip(names, row, strict=True))
        for row in (
            ("extract", 3, 1, 3, 1, 1, 1, 10.0, 50),
            ("knn", 12, 7, 3, 1, 1, 1, 3.0, 5),
            ("finetune", 1, 0, 1, 0, 0, 1, 100.0, 1000),
        )
    ]


_PLANNING = """
import sys
from pathlib import Path
from medplus.sweep.claims import Claimant
from medplus.sweep.conduct import Sweep
from medplus.sweep.grid import read_grid
from medplus.sweep.job import Place
from medplus.cli.sweeptables import work_of
from medplus.cost import total_of
folder = Path(sys.argv[1])
place = Place(sys.argv[2], str(folder / "store"), str(folder / "runs"), "cpu")
plan = Sweep(read_grid(Path(sys.argv[3])), place).plan()
work_of(plan), total_of([made.cost for made in (*plan.stores, *plan.records)])
print(len(plan.jobs), *(name for name in ("torch", "timm", "faiss") if name in sys.modules))
"""


def planned_in_a_process(world: World, grid: Path) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-c", _PLANNING, str(world.root), str(world.data), str(grid)],
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.split()


def test_planning_the_papers_grid_loads_no_torch(world):
    paper = Path(__file__).parents[2] / "configs" / "paper.yaml"
    # Per cell: an extraction, a kNN job, a job for all probes, and three fine-tunings.
    assert planned_in_a_process(world, paper) == [str(480 * 6)]


@pytest.mark.slow
def test_what_workers_make_is_what_the_plan_asked_for(world):
    """The real thing, once: after a worker has ended, nothing is left of the grid."""
    from medplus.sweep.worker import Worker

    grid = world.grid(
        backbones=["pixels", "resnet18"], fit="native", seeds=[1],
        extract={"precision": "auto", "dtype": "float16"},
        protocols={
            "knn": {"k": [1, 3], "vote": "distance"},
            "probe": {"epochs": 2, "lr": [0.1, 0.01], "batch_size": 4},
            "finetune": {"recipe": "modern", "epochs": 1, "batch_size": 4},
        },
        exclude=[{"backbones": "pixels", "protocols": "finetune"}],
    )  # fmt: skip
    said: list[str] = []
    Worker(grid, world.place, "worker", say=said.append).run()
    after = world.plan(grid)
    assert (left(after), after.cells) == (set(), ()), said
    assert (len(after.stores), len(after.records)) == (2, 2 * 2 + 2 * 2 + 1)
    assert left(world.plan(world.grid(backbones="pixels", protocols={"knn": {"k": 1}}))) == {
        "extract", "knn"
    }  # fmt: skip


# --- folders of images ---------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path):
    """A folder of six images in two classes."""
    from PIL import Image

    for i in range(6):
        path = tmp_path / "images" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), i).save(path)
    return tmp_path / "images"


def test_folder_is_planned_at_every_size_of_the_grid_and_read_only_by_its_jobs(world, images):
    plan = world.plan(world.grid(datasets=str(images), sizes=[28, 16]))
    assert {cell.images for cell in plan.cells} == {(str(images), 28), (str(images), 16)}
    plan.check_data(world.data)
    assert sorted(path.name for path in images.iterdir()) == ["a", "b"]


def test_folder_that_was_done_is_recognised_by_its_images(world, images):
    digest = load_dataset(str(images), 28).digest
    grid = world.grid(datasets=str(images), sizes=28, protocols={"knn": {"k": 1}})
    world.store("images", 28)  # of other images
    assert left(world.plan(grid)) == {"extract", "knn"}
    world.store("images", 28, dataset_digest=digest)
    assert left(world.plan(grid)) == {"knn"}
