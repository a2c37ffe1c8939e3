"""Options from a YAML file: what is taken, what is refused, and what the message says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import pytest

from medplus.cli.configfile import read_config
from medplus.cli.main import medplus
from medplus.errors import UsageError

CONFIGS = Path(__file__).parents[2] / "configs"


def read(path: Path, command: str = "probe") -> dict[str, object]:
    """Read a file as the config of a command."""
    found = medplus.get_command(click.Context(medplus), command)
    assert found is not None
    known = {p.name: p for p in found.params if p.name and p.name != "config"}
    return read_config(path, known, click.Context(found))


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that writes a config file."""

    def write(text: str) -> Path:
        path = tmp_path / "my config.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(path: Path, command: str = "probe") -> str:
    with pytest.raises(UsageError) as error:
        read(path, command)
    message = str(error.value)
    assert str(path) in message
    return message


def test_values_by_parameter(config: Callable[[str], Path]) -> None:
    path = config("dataset: [a, b]\nweight-decay: 0.1\nbatch_size: 8\nseed: 3\noverwrite: yes\n")

    assert read(path) == {
        "datasets": ["a", "b"], "weight_decay": ["0.1"], "batch_size": 8, "seeds": ["3"],
        "overwrite": True,
    }  # fmt: skip


def test_invalid_yaml_names_the_line(config: Callable[[str], Path]) -> None:
    assert "at line 3" in refusal(config("epochs: 3\nseed: 1\nlr: ]\n"))


def test_unknown_key_names_the_nearest(config: Callable[[str], Path]) -> None:
    message = refusal(config("epoch: 3"))

    assert "unknown key 'epoch'; did you mean 'epochs'?" in message
    assert "weight_decay" in message


def test_a_config_does_not_name_another(config: Callable[[str], Path]) -> None:
    assert "unknown key 'config'" in refusal(config("config: other.yaml"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("epochs: many", "'epochs': 'many' "),
        ("epochs: 0", "'epochs': 0 "),
        ("epochs: [1, 2]", "'epochs' takes one value, not [1, 2]"),
        ("epochs:", "'epochs' has no value"),
        ("seed: [1, ]\nlr: [0.1, fast]", "'lr': 'fast' "),
        ("lr: {start: 1}", "'lr' takes one value or a list of values"),
        ("lr: [[1]]", "'lr' takes one value or a list of values"),
        ("recipe: papr", "'recipe': 'papr' "),
        ("weights: no", "'weights' takes text or a number, but YAML reads its value as False"),
        ("overwrite: perhaps", "'overwrite': 'perhaps' "),
    ],
)
def test_bad_value_names_file_and_key(text: str, says: str, config: Callable[[str], Path]) -> None:
    assert says in refusal(config(text))


def test_refusal_as_the_user_sees_it(cli: Callable, config: Callable[[str], Path]) -> None:
    ran = cli("knn", "--config", config("kk: 3"))

    assert ran.code == 2
    assert ran.err.startswith("Error: ")
    assert "my config.yaml: unknown key 'kk'; did you mean 'k'?" in ran.err


def test_required_options_may_stand_in_the_file(
    cli: Callable, config: Callable[[str], Path]
) -> None:
    ran = cli("knn", "--config", config("dataset: breastmnist\nbackbone: pixels\nstore: nowhere"))

    assert "there is no folder nowhere" in ran.err


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*-*.yaml")), ids=lambda path: path.name)
def test_shipped_configs_are_accepted_by_their_command(path: Path) -> None:
    command = path.name.partition("-")[0]

    assert read(path, command)
    assert f"medplus {command} --config" in (CONFIGS / "README.md").read_text()


@pytest.mark.parametrize("name", ["paper", "prototype", "quickstart"])
def test_shipped_grids_are_listed(name: str) -> None:
    assert f"| `{name}.yaml` | `medplus sweep" in (CONFIGS / "README.md").read_text()


def test_shipped_paper_configs_are_the_papers_recipes() -> None:
    from medplus.config import KnnRecipe, ProbeRecipe, probe_recipe
    from medplus.vocabulary import PAPER_SEEDS

    knn, probe = read(CONFIGS / "knn-paper.yaml", "knn"), read(CONFIGS / "probe-paper.yaml")

    assert knn["k"] == [str(k) for k in KnnRecipe().k]
    assert (knn["metric"], knn["vote"]) == ("l2", "majority")
    assert probe["seeds"] == [str(seed) for seed in PAPER_SEEDS]
    assert probe_recipe(str(probe["recipe"])) == ProbeRecipe()
