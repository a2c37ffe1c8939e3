"""A spec says the same wherever it goes: to the command line and back, into a key, to a match."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields, replace
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medplus.cli.main import medplus as command_line
from medplus.errors import UsageError
from medplus.spec import CHOICES, PIXELS, ExtractSpec, make_spec, specs

# A comma separates several, and wildcards are spelled out: neither is in a settled name.
TEXT = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters=",*?["), min_size=1
).filter(lambda text: text == text.strip() and text not in ("all", "-"))
SPECS = st.builds(
    ExtractSpec,
    dataset=TEXT,
    size=st.none() | st.integers(1, 4096),
    backbone=TEXT.filter(lambda name: ".py" not in name),
    weights=st.none() | TEXT,
    fit=st.sampled_from([None, "pad", "resize", "native"]),
    feature=st.none() | TEXT,
    precision=st.sampled_from([None, "auto", "fp32", "bf16", "fp16"]),
    dtype=st.sampled_from([None, "float32", "float16"]),
    group_column=st.none() | TEXT,
    corruption=st.sampled_from([None, "jpeg_compression:1", "pixelate:5@octmnist"]),
)


def parsed(command: str) -> ExtractSpec:
    """Return the one spec that the real command line hands on."""
    words = shlex.split(command)
    assert words[0] == "medplus"
    with patch("medplus.embeddings.extract.extract_all", return_value=[]) as extract_all:
        command_line.main([*words[1:], "--quiet"], standalone_mode=False)
    [spec] = extract_all.call_args.args[0]
    return spec


@settings(max_examples=150, deadline=None)
@given(spec=SPECS)
def test_command_parsed_by_the_command_line_gives_the_same_spec(spec: ExtractSpec) -> None:
    assert parsed(spec.command("data", "embeddings")) == spec


def test_every_field_is_a_choice_of_the_command() -> None:
    named = {"dataset", "size", "backbone", *CHOICES}
    assert named == {field.name for field in fields(ExtractSpec)}


@dataclass(frozen=True)
class Made:
    """Embeddings that exist."""

    spec: ExtractSpec
    dataset: str = "toy"
    backbone: str = "net"
    tag: str = "net.tag"


SETTLED = ExtractSpec(
    "/data/toy.npz", 28, "net", "pretrained", "pad", "prelogits", "fp32", "float32"
)
OTHERS = {
    "dataset": "other", "size": 64, "backbone": "net2", "weights": "none", "fit": "native",
    "feature": "avg", "precision": "bf16", "dtype": "float16",
}  # fmt: skip


@given(open_fields=st.sets(st.sampled_from(sorted(set(OTHERS) - {"dataset", "backbone"}))))
def test_choices_left_open_match_any(open_fields: set[str]) -> None:
    assert replace(SETTLED, **dict.fromkeys(open_fields)).matches(Made(SETTLED))


@pytest.mark.parametrize("field", OTHERS)
def test_any_other_choice_does_not_match(field: str) -> None:
    assert not replace(SETTLED, **{field: OTHERS[field]}).matches(Made(SETTLED))


@pytest.mark.parametrize(("dataset", "backbone"), [("toy", "net"), ("toy", "net.tag")])
def test_names_match_as_stores_have_them(dataset: str, backbone: str) -> None:
    assert replace(SETTLED, dataset=dataset, backbone=backbone).matches(Made(SETTLED))


def test_raw_pixels_match_whatever_is_said_of_networks() -> None:
    pixels = ExtractSpec("/data/toy.npz", 28, PIXELS, dtype="float32")
    asked = replace(SETTLED, backbone=PIXELS, precision="bf16")
    assert asked.matches(Made(pixels, backbone=PIXELS, tag=PIXELS))


@pytest.mark.parametrize("field", ["size", "fit", "feature", "precision", "dtype"])
def test_key_depends_on_every_choice_and_digest(field: str) -> None:
    key = SETTLED.key("d", "w")
    assert replace(SETTLED, **{field: OTHERS[field]}).key("d", "w") != key
    assert len({key, SETTLED.key("e", "w"), SETTLED.key("d", "x"), SETTLED.key("w", "d")}) == 4


def test_corruption_is_of_the_key_and_matches_nothing_else() -> None:
    noisy = replace(SETTLED, corruption="gaussian_noise:3@grey")
    louder = replace(SETTLED, corruption="gaussian_noise:4@grey")
    assert len({spec.key("d", "w") for spec in (SETTLED, noisy, louder)}) == 3
    assert replace(SETTLED, corruption="gaussian_noise:3").matches(Made(noisy))
    assert not SETTLED.matches(Made(noisy))
    assert not noisy.matches(Made(SETTLED))
    assert not louder.matches(Made(noisy))


def test_key_does_not_depend_on_names() -> None:
    moved = replace(SETTLED, dataset="/elsewhere/toy.npz", backbone="net.tag", weights="/w.pth")
    assert moved.key("d", "w") == SETTLED.key("d", "w")


def test_specs_are_every_combination_in_order() -> None:
    made = specs(["a", "b"], [28, 64], ["x", "y"], fit="pad")
    names = [(spec.dataset, spec.size, spec.backbone) for spec in made]
    assert names == [(d, s, b) for d in "ab" for s in (28, 64) for b in "xy"]
    assert {spec.fit for spec in made} == {"pad"}


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        ({"precission": "fp32"}, "did you mean 'precision'"),
        ({"precision": "fp64"}, "none of auto, fp32, bf16, fp16"),
        ({"fit": "crop"}, "none of pad, resize, native"),
        ({"corruption": "jpeg:3"}, "unknown corruption 'jpeg'"),
        ({"dtype": "float64"}, "none of float32, float16"),
    ],
)
def test_a_wrong_word_is_refused(choices: dict[str, str], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        make_spec("toy", 28, "net", **choices)
