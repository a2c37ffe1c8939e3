"""YAML and JSON that never end, or that nobody could print or write again."""

from __future__ import annotations

import json

import click
import pytest

from medplus.backbones.weights_folder import read_manifest
from medplus.cli.configfile import read_config
from medplus.cli.knn import knn
from medplus.config import finetune_recipe
from medplus.datasets.description import read_description
from medplus.embeddings.info import read_info
from medplus.errors import MedplusError, UsageError
from medplus.jsonfile import parse_json
from medplus.run.ledger import read_record
from medplus.sweep.grid import read_grid
from medplus.yamlfile import read_yaml
from tests.hostile.limits import outcome

GRID = "datasets: breastmnist\nbackbones: pixels\nprotocols: {knn: {}}\n"


def growing(first: str, line: str, levels: int = 12) -> str:
    """Return a YAML document in which every line means nine times the line before it."""
    lines = [f"a: &a {first}"]
    for i in range(levels):
        one, next_ = chr(97 + i), chr(98 + i)
        lines.append(f"{next_}: &{next_} " + line.format(", ".join([f"*{one}"] * 9)))
    return "\n".join(lines) + "\n"


YAML = {
    "aliases of aliases": growing("[x]", "[{}]"),
    "merges of merges": growing("{k: 1}", "{{<<: [{}]}}"),
    "many merges of much": "a: &a {" + ", ".join(f"k{i}: 1" for i in range(300)) + "}\n"
    + "".join(f"b{i}: {{<<: *a}}\n" for i in range(300)),
    "merge of itself": "a: &a {<<: *a}\n",
    "keys that are lists": "".join(f"? {'[' * 50}x{']' * 50}\n: 1\n" for _ in range(2)),
    "keys that are aliases of aliases": growing("[x]", "[{}]") + "? *m\n: 1\n",
    "a number of 10,000 digits": "seed: " + "9" * 10_000,
    "a number of 10,000 hexadecimal digits": "seed: 0x" + "f" * 10_000,
    "a number of 5,000 sexagesimal places": "seed: 1" + ":59" * 5_000,
    "half a surrogate pair": 'name: "\\ud800"\n',
    "flow nested deep": "a: " + "[" * 1_000,
    "blocks nested deep": "".join(" " * i + "a:\n" for i in range(1500)),
    "a tag that calls": "a: !!python/object/apply:os.mkdir [sprung]\n",
}  # fmt: skip
READ = {"aliases of aliases", "merges of merges", "merge of itself"}
"""Which copy nothing, or as YAML's reader merges each key once, little; others may be refused."""


@pytest.mark.parametrize("what", YAML)
def test_yaml_ends_and_is_refused_where_it_would_grow(what, tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text(YAML[what])
    said = outcome(lambda: read_yaml(path, "recipe"))
    assert said.startswith("refused: the recipe file") or (what in READ and said == "done")


@pytest.mark.parametrize(
    "value",
    ['!!int ""', '!!int "+"', '!!float ""', "!!bool x", "!!timestamp x", "2001-99-99", "!!set [1]"],
)
def test_value_that_is_not_what_its_tag_says_is_refused(value, tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text(f"a: {value}\n")
    with pytest.raises(UsageError, match="not valid YAML"):
        read_yaml(path, "recipe")


@pytest.mark.parametrize("reads", ["grid", "recipe", "description", "config"])
@pytest.mark.parametrize("key", ["k", "epochs", "seeds", "seed", "datasets", "name"])
def test_value_of_billions_of_parts_is_refused_and_not_quoted(reads, key, tmp_path):
    path = tmp_path / "dataset.yaml"
    parts = "".join(
        f"  - &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(12)
    )
    grid = GRID if reads == "grid" and key != "datasets" else ""
    path.write_text(f"{grid}{key}:\n  - &a [x]\n{parts}")
    context = click.Context(knn)
    known = {str(parameter.name): parameter for parameter in knn.params}
    call = {
        "grid": lambda: read_grid(path),
        "recipe": lambda: finetune_recipe(str(path)),
        "description": lambda: read_description(tmp_path),
        "config": lambda: read_config(path, known, context),
    }[reads]
    said = outcome(call)
    assert said.startswith("refused: ")
    assert len(said) < 2000


def test_merges_that_people_write_are_read(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc: {<<: [*b, *a], z: 4}\n")
    assert set(read_yaml(path, "recipe")["c"]) == {"x", "y", "z"}


@pytest.mark.parametrize("spelling", ["seed: 9223372036854775807", "seed: 0x7fffffffffffffff"])
def test_longest_numbers_in_use_are_read(spelling, tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text(spelling)
    assert read_yaml(path, "recipe") == {"seed": 2**63 - 1}


JSON = {
    "lists nested deep": b"[" * 100_000,
    "objects nested deep": b'{"a":' * 100_000,
    "deeper than anything of ours": b'{"schema_version":1,"format":1,"config":'
    + b'{"a":' * 150 + b"1" + b"}" * 151,
    "half a surrogate pair": b'{"schema_version":1,"format":1,"weights":{"\\uD800":1}}',
    "a number of 10,000 digits": b'{"schema_version":' + b"9" * 10_000 + b',"format":1}',
    "no object": b"[1]",
    "nothing": b"",
    "no text": b"\xff\xfe\xfa",
}  # fmt: skip


@pytest.mark.parametrize("what", JSON)
@pytest.mark.parametrize(
    ("name", "read"),
    [("record.json", read_record), ("zarr.json", read_info), ("manifest.json", read_manifest)],
)
def test_json_that_nobody_could_walk_is_refused(what, name, read, tmp_path):
    (tmp_path / name).write_bytes(JSON[what])
    with pytest.raises(MedplusError, match=r"damaged|no medplus store|not a medplus store"):
        read(tmp_path)


def test_json_of_ours_is_read_as_the_library_reads_it():
    document = {"a": [1, {"b": None, "c": [[]]}], "é": "🙂", "n": float("inf"), "q": "\\ud800"}
    assert parse_json(json.dumps(document).encode()) == document
    deepest: object = 1
    for _ in range(100):
        deepest = [deepest]
    assert parse_json(json.dumps(deepest).encode()) == deepest
