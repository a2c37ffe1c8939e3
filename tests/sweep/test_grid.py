"""What a grid's file may say, and what is said of one that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from medplus.errors import UsageError
from medplus.spec import ExtractSpec
from medplus.sweep.grid import Grid, read_grid

CONFIGS = Path(__file__).parents[2] / "configs"
TWELVE = {
    "pathmnist", "chestmnist", "dermamnist", "octmnist", "pneumoniamnist", "retinamnist",
    "breastmnist", "bloodmnist", "tissuemnist", "organamnist", "organcmnist", "organsmnist",
}  # fmt: skip
TEN = {
    "vgg16", "alexnet", "resnet18", "densenet121", "efficientnet_b4", "vit_base_patch16_224",
    "vit_base_patch16_clip_224", "eva02_base_patch16_clip_224", "vit_base_patch16_224.dino",
    "samvit_base_patch16",
}  # fmt: skip

BASE = "datasets: breastmnist\nbackbones: pixels\nprotocols: {knn: }\n"
"""A grid of three lines, to which a line may be added."""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Return a function that writes a grid's file; its folder is the working folder."""
    monkeypatch.chdir(tmp_path)

    def write_file(text: str) -> Path:
        path = tmp_path / "my grid.yaml"
        path.write_text(text)
        return path

    return write_file


@pytest.fixture
def read(write: Callable[[str], Path]) -> Callable[[str], Grid]:
    return lambda text: read_grid(write(text))


@pytest.fixture
def refusal(write: Callable[[str], Path]) -> Callable[[str], tuple[int | None, str]]:
    """Return a function that reads a wrong grid: the line that is named, and what is said."""

    def refuse(text: str) -> tuple[int | None, str]:
        path = write(text)
        with pytest.raises(UsageError) as caught:
            read_grid(path)
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith(str(path))
        where, _, said = message.removeprefix(str(path)).partition(": ")
        line = int(where.removeprefix(", line ")) if where else None
        return line, said

    return refuse


def test_short_grid_has_the_papers_defaults(read):
    grid = read(BASE)
    assert grid.datasets == ("breastmnist",)
    assert grid.sizes == (28,)
    assert grid.backbones == ("pixels",)
    assert (grid.weights, grid.fit) == (("pretrained",), ())
    assert grid.seeds == (9930641, 115149041, 252139603)
    assert grid.extract.model_dump() == {
        "precision": ("auto",),
        "dtype": "float32",
        "feature": ("prelogits",),
        "batch_size": None,
    }
    assert grid.protocols.knn is not None
    assert (grid.protocols.knn.k, grid.protocols.knn.metric, grid.protocols.knn.vote) == (
        (11,),
        "l2",
        "majority",
    )
    assert grid.protocols.knn.backend == "auto"
    assert (grid.protocols.probe, grid.protocols.finetune, grid.exclude) == (None, None, ())


def test_one_value_is_a_list_of_one(read):
    many = read(
        "datasets: [breastmnist]\nsizes: [64]\nbackbones: [pixels]\nseeds: [5]\n"
        "protocols: {knn: {k: [3]}, probe: {lr: [0.1], weight_decay: [0.2]}}\n"
        "exclude: [{datasets: [breastmnist], sizes: [64], protocols: [knn], seeds: [5]}]\n"
    )
    one = read(
        "datasets: breastmnist\nsizes: 64\nbackbones: pixels\nseeds: 5\n"
        "protocols: {knn: {k: 3}, probe: {lr: 0.1, weight_decay: 0.2}}\n"
        "exclude: [{datasets: breastmnist, sizes: 64, protocols: knn, seeds: 5}]\n"
    )
    assert one == many
    assert one.protocols.probe is not None
    assert (one.protocols.probe.lr, one.protocols.probe.weight_decay) == ((0.1,), (0.2,))


def test_all_may_stand_beside_others_and_nothing_is_twice(read):
    grid = read(
        "datasets: [bloodmnist, all]\nsizes: [64, all, 28]\nbackbones: [all, pixels]\n"
        "seeds: [1, 1, 2]\nprotocols: {knn: }\n"
    )
    assert grid.datasets[0] == "bloodmnist"
    assert sorted(grid.datasets) == sorted(TWELVE)
    assert grid.sizes == (64, 28, 128, 224)
    assert sorted(grid.backbones) == sorted({*TEN, "pixels"})
    assert grid.seeds == (1, 2)


def test_backbone_in_two_spellings_is_one_backbone(read):
    grid = read(
        "datasets: breastmnist\nbackbones: [resnet18, resnet18.a1_in1k]\nprotocols: {knn: }\n"
    )
    assert grid.backbones == ("resnet18",)


def test_truth_value_is_no_number(refusal):
    assert refusal(BASE + "sizes: true\n")[0] == 4


def test_paths_are_made_absolute_and_stay_one(read, tmp_path):
    (tmp_path / "own.npz").touch()
    (tmp_path / "weights.pt").touch()
    folder = tmp_path / "trained"
    folder.mkdir()
    (folder / "network.safetensors").touch()
    grid = read(
        f"datasets: [own.npz, ./own.npz, {tmp_path}/own.npz, breastmnist, sub/other.npz]\n"
        "backbones: [trained, ./trained, resnet18]\nweights: weights.pt\n"
        "protocols: {knn: }\nexclude: [{datasets: own.npz, backbones: trained}]\n"
    )
    own = str(tmp_path / "own.npz")
    assert grid.datasets == (own, "breastmnist", str(tmp_path / "sub/other.npz"))
    assert grid.backbones == (str(folder), "resnet18")
    assert grid.weights == (str(tmp_path / "weights.pt"),)
    assert not grid.includes(ExtractSpec(own, None, str(folder)), "knn")
    assert grid.includes(ExtractSpec(own, None, "resnet18"), "knn")


def test_probe_recipe_by_name_with_fields_and_the_grids_seeds(read):
    grid = read(BASE.replace("{knn: }", "{probe: {recipe: grid, epochs: 7}}") + "seeds: [3, 4]\n")
    assert grid.protocols.probe is not None
    recipe = grid.protocols.probe
    assert (len(recipe.lr), recipe.lr[0], recipe.lr[-1]) == (13, 1e-4, 1.0)
    assert (recipe.epochs, grid.seeds) == (7, (3, 4))


def test_finetune_recipe_by_name_with_fields(read):
    grid = read(BASE.replace("{knn: }", "{finetune: {recipe: modern, epochs: 2, lr: }}"))
    assert grid.protocols.finetune is not None
    settled = {"recipe": "modern", "epochs": 2, "lr": 5e-4, "batch_size": 64}
    assert settled.items() <= grid.protocols.finetune.options.items()


def test_finetune_recipe_by_file_is_named_in_full(read, tmp_path):
    (tmp_path / "mine.yaml").write_text("epochs: 9\nlr: 0.5\n")
    grid = read(BASE.replace("{knn: }", "{finetune: {recipe: mine.yaml, lr: 0.25}}"))
    assert grid.protocols.finetune is not None
    settled = {"recipe": str(tmp_path / "mine.yaml"), "epochs": 9, "lr": 0.25}
    assert settled.items() <= grid.protocols.finetune.options.items()


@pytest.mark.parametrize(("written", "meant"), [("auto", "auto"), ("8", 8)])
def test_batch_size_of_finetuning_may_be_left_to_the_machine(written, meant, read):
    grid = read(BASE.replace("{knn: }", f"{{finetune: {{batch_size: {written}}}}}"))
    assert grid.protocols.finetune is not None
    assert grid.protocols.finetune.options["batch_size"] == meant


# Every fault is on the line that is named last: flow or block style, deep or not.
FAULTS = {
    "unknown key": (BASE + "dataset: x\n", 4, "unknown key 'dataset'; did you mean 'datasets'?"),
    "unknown key of extract": (
        BASE + "extract:\n  dtype: float16\n  precison: fp32\n",
        6,
        "unknown key 'precison'; did you mean 'precision'?",
    ),
    "unknown key of an exclusion": (
        BASE + "exclude:\n- backbones: pixels\n- sizes: 28\n  protocol: knn\n",
        7,
        "unknown key 'protocol'; did you mean 'protocols'?",
    ),
    "unknown feature": (
        BASE + "extract:\n  dtype: float16\n  feature: clss\n",
        6,
        "unknown feature 'clss'; did you mean 'cls'?",
    ),
    "feature at the top": (BASE + "feature: cls\n", 4, "'feature' stands under 'extract'"),
    "feature of a protocol": (
        BASE.replace("{knn: }", "\n  knn:\n    feature: cls"),
        5,
        "the feature stands under 'extract', for knn and probe alike",
    ),
    "feature that nothing uses": (
        BASE.replace("{knn: }", "{finetune: }") + "extract: {feature: cls}\n",
        4,
        "feature = 'cls' is of no use to this grid",
    ),
    "unknown dataset": (
        "backbones: pixels\nprotocols: {knn: }\ndatasets:\n- bloodmnist\n- breastmnst\n",
        5,
        "unknown dataset 'breastmnst'; did you mean 'breastmnist'?",
    ),
    "unknown backbone": (
        "datasets: bloodmnist\nprotocols: {knn: }\nbackbones: [pixels,\n resnet81]\n",
        4,
        "unknown backbone 'resnet81'; did you mean 'resnet18'?",
    ),
    "unknown protocol": (
        "datasets: bloodmnist\nbackbones: pixels\nprotocols:\n  knn:\n  finetun: {}\n",
        5,
        "unknown protocol 'finetun'; did you mean 'finetune'?",
    ),
    "unknown key of knn": (
        BASE.replace("{knn: }", "\n  knn:\n    k: 3\n    metrik: l2\n"),
        6,
        "unknown key 'metrik'; did you mean 'metric'?",
    ),
    "unknown key of finetune": (
        BASE.replace("{knn: }", "\n  probe:\n    lr: 1\n  finetune:\n    lr: 1\n    epoch: 3\n"),
        8,
        "unknown key 'epoch'; did you mean 'epochs'?",
    ),
    "k of zero": (
        BASE.replace("{knn: }", "\n  knn:\n    vote: majority\n    k: [3, 0]\n"),
        6,
        "k = 0",
    ),
    "missing recipe file": (
        BASE.replace("{knn: }", "{finetune: {recipe: none.yaml}}"),
        3,
        "recipe file none.yaml does not exist",
    ),
    "seeds in a protocol": (
        BASE.replace("{knn: }", "\n  probe:\n    epochs: 3\n    seeds: [1]\n"),
        6,
        "seeds stand at the top of a grid",
    ),
    "size of zero": (
        BASE + "sizes:\n- 28\n- 0\n",
        6,
        "0: ",
    ),
    "negative seed": (BASE + "seeds: -1\n", 4, "-1"),
    "no seeds": (BASE + "seeds: []\n", 4, "seeds = []"),
    "no datasets": ("datasets: []\nbackbones: pixels\nprotocols: {knn: }\n", 1, "datasets = []"),
    "no protocols": (
        "datasets: bloodmnist\nbackbones: pixels\nprotocols: {}\n",
        3,
        "protocols = {}",
    ),
    "empty name of a dataset": (BASE.replace("breastmnist", "''"), 1, "''"),
    "mapping as dataset": (BASE.replace("breastmnist", "{a: 1}"), 1, "{'a': 1}"),
    "number as protocol's recipe": (BASE.replace("{knn: }", "\n  knn: 5\n"), 4, "5"),
    "unknown fit": (BASE + "fit: stretch\n", 4, "fit = 'stretch'"),
    "unknown precision": (BASE + "extract:\n  precision: fp8\n", 5, "'fp8'"),
    "weights file is missing": (BASE + "weights: none.pt\n", 4, "none.pt does not exist"),
    "weights are a folder": (BASE + "weights: .\n", 4, "is a folder without manifest.json"),
    "exclusions are no list": (BASE + "exclude: {backbones: pixels}\n", 4, "exclude"),
    "exclusion of an absent dataset": (
        BASE + "exclude:\n- backbones: pixels\n- sizes: 28\n  datasets: [breastmnst]\n",
        7,
        "there is no 'breastmnst' among the grid's datasets; did you mean 'breastmnist'?",
    ),
    "exclusion of an absent seed": (
        BASE + "exclude: [{seeds: 7}]\n",
        4,
        "'7' among the grid's seeds",
    ),
    "exclusion of nothing": (BASE + "exclude:\n- {}\n", 5, "must name what it leaves out"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_told_with_its_line(fault, refusal):
    text, line, said = FAULTS[fault]
    found, message = refusal(text)
    assert said in message
    assert found == line


@pytest.mark.parametrize("key", ["datasets", "backbones", "protocols"])
def test_missing_key_is_named(key, refusal):
    values = yaml.safe_load(BASE)
    del values[key]
    assert f"'{key}' is missing" in refusal(yaml.safe_dump(values))[1]


def test_empty_file_lacks_everything(refusal):
    assert "is missing" in refusal("# nothing yet\n")[1]


@pytest.mark.parametrize(
    ("items", "line"),
    [
        (["bloodmnist", "bloodmnist", "nosuch"], 4),
        (["all", "nosuch"], 3),
    ],
)
def test_line_is_right_after_repetitions_and_all(items, line, refusal):
    listed = "".join(f"- {item}\n" for item in items)
    found, said = refusal(f"datasets:\n{listed}backbones: pixels\nprotocols: {{knn: }}\n")
    assert "unknown dataset 'nosuch'" in said
    assert found == line


@pytest.mark.parametrize("protocol", ["probe", "finetune"])
def test_line_of_an_unknown_recipe(protocol, refusal):
    line, said = refusal(
        BASE.replace("{knn: }", f"\n  {protocol}:\n    epochs: 3\n    recipe: papr")
    )
    assert "unknown recipe 'papr'; did you mean 'paper'?" in said
    assert line == 6


@pytest.mark.parametrize("protocol", ["probe", "finetune"])
def test_field_called_name_is_unknown_too(protocol, refusal):
    line, said = refusal(BASE.replace("{knn: }", f"\n  {protocol}:\n    name: paper"))
    assert "unknown key 'name'" in said
    assert line == 5


@pytest.mark.parametrize("field", ["lr", "weight_decay", "recipe"])
def test_empty_field_of_probe_is_the_default(field, read):
    grid = read(BASE.replace("{knn: }", f"{{probe: {{{field}: }}}}"))
    assert grid.protocols.probe == read(BASE.replace("{knn: }", "{probe: }")).protocols.probe


@pytest.mark.parametrize(
    ("sizes", "line"),
    [("[28,\n 32]", 5), ("\n- all\n- 28\n- 32", 7), ("\n- 28\n- 28\n- 32", 7), ("32", 4)],
)
def test_size_that_medmnist_does_not_have_is_refused_with_its_own_line(sizes, line, refusal):
    assert refusal(BASE + f"sizes: {sizes}\n") == (
        line,
        "breastmnist has no size 32; MedMNIST+ has 28, 64, 128 and 224",
    )


@pytest.mark.parametrize(
    ("exclusion", "excluded"),
    [
        ({"datasets": "all", "protocols": "finetune"}, ["finetune"]),
        ({"sizes": "all", "backbones": ["all"], "protocols": "knn"}, ["knn"]),
        ({"seeds": "all"}, ["finetune", "probe"]),
        ({"protocols": "all", "seeds": 1}, ["finetune", "probe"]),
    ],
    ids=str,
)
def test_all_in_an_exclusion_is_everything_of_the_grid(exclusion, excluded, read):
    document = {
        "datasets": ["breastmnist", "own.npz"], "backbones": ["pixels", "resnet18"], "seeds": 1,
        "sizes": [28, 64], "protocols": {"knn": None, "probe": None, "finetune": None},
        "exclude": [exclusion],
    }  # fmt: skip
    grid = read(yaml.safe_dump(document))
    for spec in grid.specs():
        if spec.size is None and "sizes" in exclusion:
            continue  # a file's own size is none of the grid's
        for protocol, seed in (("knn", None), ("probe", 1), ("finetune", 1)):
            assert grid.includes(spec, protocol, seed) == (protocol not in excluded), spec


def test_recursive_value_is_refused(refusal):
    assert refusal("datasets: &a [*a]\nbackbones: pixels\nprotocols: {knn: }\n")[0] == 1


NAMES = {
    "datasets": ["breastmnist", "bloodmnist", "/data/own.npz"],
    "sizes": [28, 64],
    "backbones": ["pixels", "resnet18", "vgg16"],
    "protocols": ["knn", "probe", "finetune"],
    "seeds": [1, 2, 3],
}


@st.composite
def grids(draw: st.DrawFn) -> dict[str, Any]:
    document: dict[str, Any] = {
        field: draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
        for field, names in NAMES.items()
    }
    exclusion = st.fixed_dictionaries(
        {},
        optional={
            field: st.lists(st.sampled_from(document[field]), min_size=1, unique=True)
            for field in NAMES
        },
    ).filter(bool)
    return {**document, "exclude": draw(st.lists(exclusion, max_size=3))}


def runs_of(document: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Yield a grid's runs, by hand: the product, less what an exclusion matches in all it names."""
    for dataset, size, backbone, protocol in product(
        document["datasets"], document["sizes"], document["backbones"], document["protocols"]
    ):
        if dataset.endswith(".npz"):
            size = None
        for seed in document["seeds"] if protocol != "knn" else [None]:
            run = {"datasets": dataset, "sizes": size, "backbones": backbone}
            run |= {"protocols": protocol, "seeds": seed}
            excluded = any(
                all(run[field] in values for field, values in exclusion.items())
                for exclusion in document["exclude"]
            )
            if not excluded:
                yield tuple(run.values())


@pytest.fixture(scope="module")
def one_folder(new_folder):
    return new_folder()


@given(document=grids())
def test_runs_are_the_product_less_the_exclusions(document, one_folder):
    path = one_folder / "grid.yaml"
    written = {**document, "protocols": dict.fromkeys(document["protocols"])}
    path.write_text(yaml.safe_dump(written))
    expected = set(runs_of(document))
    if not expected:
        with pytest.raises(UsageError, match=r"line \d+: the exclusions leave nothing of the grid"):
            read_grid(path)
        return
    grid = read_grid(path)
    found = []
    for spec in grid.specs():
        for protocol in ("knn", "probe", "finetune"):
            if getattr(grid.protocols, protocol) is None:
                continue
            if protocol != "knn":
                found += [
                    (spec.dataset, spec.size, spec.backbone, protocol, seed)
                    for seed in grid.seeds_of(spec, protocol)
                ]
            elif grid.includes(spec, protocol):
                found.append((spec.dataset, spec.size, spec.backbone, protocol, None))
    assert len(found) == len(set(found))
    assert set(found) == expected


def counts(grid: Grid) -> tuple[int, int, int, int]:
    """Return the numbers of stores, kNN runs, probes and fine-tunings."""
    knn = probes = finetunings = stores = 0
    for spec in grid.specs():
        k = grid.includes(spec, "knn") * len(grid.protocols.knn.k) if grid.protocols.knn else 0
        heads = len(grid.seeds_of(spec, "probe")) if grid.protocols.probe else 0
        if grid.protocols.probe:
            heads *= len(grid.protocols.probe.lr) * len(grid.protocols.probe.weight_decay)
        knn, probes, stores = knn + k, probes + heads, stores + bool(k or heads)
        finetunings += len(grid.seeds_of(spec, "finetune")) if grid.protocols.finetune else 0
    return stores, knn, probes, finetunings


def test_the_papers_grid_has_what_its_comment_promises():
    path = CONFIGS / "paper.yaml"
    grid = read_grid(path)
    assert counts(grid) == (480, 480, 1440, 1440)
    assert "480 stores, 480 kNN runs, 1,440 probes and\n# 1,440 fine-tunings" in path.read_text()
    assert (grid.weights, grid.fit) == (("pretrained",), ("pad",))
    assert grid.extract.precision == ("fp32",)
    assert grid.exclude == ()


def test_quickstart_grid_trains_no_pixels_and_needs_no_download():
    grid = read_grid(CONFIGS / "quickstart.yaml")
    assert counts(grid) == (4, 4 * 3, 4 * 3, 2 * 3)
    assert grid.weights == ("none",)


@pytest.mark.parametrize("said", ["[knn, probe]", "{knn: , probe: }"])
def test_protocols_may_be_a_list(read, said):
    grid = read(f"datasets: breastmnist\nbackbones: pixels\nprotocols: {said}\n")
    assert grid == read(BASE.replace("{knn: }", "{knn: {}, probe: {}}"))
    assert grid.protocols.finetune is None


# --- axes ----------------------------------------------------------------------------------------


def test_axes_multiply_embeddings_but_not_what_has_no_such_choice(read):
    grid = read(
        "datasets: breastmnist\nbackbones: [pixels, resnet18]\nweights: [pretrained, none]\n"
        "fit: [pad, native]\nextract: {feature: [prelogits, avg], precision: [fp32, bf16]}\n"
        "protocols: [knn, finetune]\n"
    )
    choices = set(product(("pretrained", "none"), ("pad", "native"), ("prelogits", "avg"),
                          ("fp32", "bf16")))  # fmt: skip
    found = [s for s in grid.specs() if s.backbone == "resnet18"]
    assert {(s.weights, s.fit, s.feature, s.precision) for s in found} == choices
    assert (len(found), sum(s.backbone == "pixels" for s in grid.specs())) == (16, 1)
    trained = [s for s in grid.trained_specs() if s.backbone == "resnet18"]
    assert sorted((s.weights, s.fit) for s in trained) == sorted(
        product(("pretrained", "none"), ("pad", "native"))
    )


def test_exclusions_name_values_of_every_axis(read):
    grid = read(
        "datasets: breastmnist\nbackbones: resnet18\nweights: [pretrained, none]\n"
        "extract: {feature: [prelogits, avg]}\nprotocols: [knn, finetune]\n"
        "exclude: [{weights: none, protocols: finetune}, {feature: avg, weights: none}]\n"
    )
    heads = {(s.weights, s.feature) for s in grid.specs() if grid.includes(s, "knn")}
    assert heads == {("pretrained", "prelogits"), ("pretrained", "avg"), ("none", "prelogits")}
    trained = [s.weights for s in grid.trained_specs() if grid.seeds_of(s, "finetune")]
    assert trained == ["pretrained"]


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        (BASE + "weights: [pretrained, none]\n", 4, "weights"),
        (BASE + "fit: [pad, resize]\n", 4, "fit"),
        (BASE + "extract:\n  feature: [prelogits, cls]\n", 5, "feature"),
        ("datasets: breastmnist\nbackbones: resnet18\nprotocols: finetune\n"
         "extract: {precision: [fp32, bf16]}\n", 4, "precision"),
    ],
)  # fmt: skip
def test_axis_that_nothing_has_is_refused(text, line, key, refusal):
    found, said = refusal(text)
    assert said.startswith(f"several values of {key} are of no use to this grid")
    assert found == line


def test_part_of_a_grid_has_its_jobs_and_no_others(read):
    grid = read(
        "datasets: [breastmnist, bloodmnist]\nbackbones: [pixels, resnet18]\nseeds: [1, 2]\n"
        "weights: [pretrained, none]\nprotocols: [knn, probe]\n"
    )
    part = grid.narrowed({"datasets": "bloodmnist", "weights": "none", "seeds": 2,
                          "protocols": "probe"})  # fmt: skip
    names = {(spec.dataset, spec.backbone, spec.weights) for spec in part.specs()}
    assert names == {("bloodmnist", "pixels", None), ("bloodmnist", "resnet18", "none")}
    assert (part.seeds, part.protocols.names) == ((2,), ("probe",))
    with pytest.raises(UsageError, match="no 'vgg16' among the grid's backbones"):
        grid.narrowed({"backbones": "vgg16"})
