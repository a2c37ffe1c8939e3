"""Jobs: names that are files' names too, and differ where jobs do."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from medplus.spec import ExtractSpec
from medplus.sweep.job import Job

NAMES = st.sampled_from(["breastmnist", "a.npz", "/x/a.npz", "/y/a.npz", "ünï [b].npz"]) | st.text(
    min_size=1, max_size=40
)
VALUES = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(0, 1) | st.text(max_size=3)
OPTIONS = st.fixed_dictionaries(
    {"seed": st.integers(0, 2**63 - 1)},
    optional={
        "k": st.lists(st.integers(1, 20), max_size=3),
        "lr": VALUES,
        "precision": VALUES,
    },
)
JOBS = st.builds(
    Job,
    kind=st.sampled_from(["extract", "knn", "probe", "finetune"]),
    spec=st.builds(
        ExtractSpec,
        NAMES,
        st.none() | st.integers(1, 999),
        NAMES,
        st.sampled_from(["pretrained", "none", "/w/a.pt", "/v/a.pt"]),
        st.sampled_from([None, "pad", "resize", "native"]),
    ),
    options=OPTIONS,
    n_runs=st.just(1),  # it follows from the options
)
HEX = set("0123456789abcdef")


def changed(job: Job, draw: Any) -> Job:
    """Return the job with one field changed."""
    field = draw(st.sampled_from(["kind", "dataset", "size", "backbone", "weights", "options"]))
    other = draw(JOBS)
    if field not in ("kind", "options"):
        return replace(job, spec=replace(job.spec, **{field: getattr(other.spec, field)}))
    return replace(job, **{field: getattr(other, field)})


@given(job=JOBS, data=st.data())
def test_ids_differ_where_one_field_differs(job, data):
    other = changed(job, data.draw)
    assume(other != job)
    assert other.id != job.id


@given(job=JOBS)
def test_equal_jobs_have_equal_ids_however_their_options_are_ordered(job):
    turned = replace(job, options=dict(reversed(list(job.options.items()))))
    assert json.loads(json.dumps(job.options)) == job.options  # it can be sent away
    assert turned.id == job.id


@given(job=JOBS)
def test_id_is_a_safe_file_name_that_ends_in_eight_hex_digits(job):
    readable, _, digits = job.id.rpartition("-")
    assert len(digits) == 8
    assert set(digits) <= HEX
    assert readable.startswith(job.kind)
    assert all(c.isalnum() or c in "._-" for c in job.id)


def test_id_of_a_long_name_is_still_a_files_name(tmp_path):
    job = Job("extract", ExtractSpec(f"/data/{'x' * 250}.npz", None, "resnet18", "none"), {}, 0)
    (tmp_path / f"{job.id}.lock").touch()


@pytest.mark.parametrize(
    ("kind", "spec", "name"),
    [
        ("extract", ExtractSpec("breastmnist", 64, "resnet18"), "extract breastmnist 64 resnet18"),
        ("knn", ExtractSpec("/data/own.npz", None, "pixels"), "knn own pixels"),
        (
            "finetune",
            ExtractSpec("breastmnist", 28, "/runs/x/id/"),
            "finetune breastmnist 28 id seed7",
        ),
    ],
)
def test_name_says_the_job_in_words(kind, spec, name):
    assert Job(kind, spec, {"seed": 7}, 1).name == name
