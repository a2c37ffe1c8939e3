"""The plan of a run: its identity beforehand, and its record afterwards."""

from __future__ import annotations

import hashlib
import json
import pickle
import re

import pytest

from medplus.run.ledger import save_run
from medplus.run.plan import claim_missing, plan_run
from medplus.run.record import Provenance
from tests.records import make_record

pytestmark = pytest.mark.usefixtures("fast_disk")

PROVENANCE = Provenance.of(make_record())


@pytest.fixture
def plan(tmp_path):
    """Return a function that plans a run."""

    def make(config=None, protocol="knn", provenance=PROVENANCE):
        return plan_run(provenance, protocol, "name", config or {"k": 5}, {"k": 5}, tmp_path)

    return make


def test_run_id_is_readable_and_ends_in_the_hash_of_its_config(plan, tmp_path):
    made = plan()
    text = json.dumps(made.config, sort_keys=True, separators=(",", ":"))
    assert made.config == {"protocol": "knn", "k": 5}
    assert re.fullmatch(r"name-[0-9a-f]{8}", made.run_id)
    assert made.run_id.endswith(hashlib.sha256(text.encode()).hexdigest()[:8])
    assert made.folder == tmp_path / "knn/toy/28/toynet" / made.run_id


@pytest.mark.parametrize("other", [{"config": {"k": 6}}, {"protocol": "probe"}])
def test_equal_configs_are_the_same_run_and_others_are_not(other, plan):
    assert plan().folder == plan().folder
    assert plan(**other).run_id != plan().run_id
    assert plan(**other).identity != plan().identity


def test_names_take_no_part_in_the_identity(plan):
    moved = PROVENANCE.model_copy(update={"dataset": "toy2", "backbone": "other"})
    assert plan(provenance=moved).identity == plan().identity


def test_a_record_tells_provenance_results_and_environment(plan):
    made = plan()
    record = made.record({"val": {}, "test": {}}, 1.5, {"device": "cpu"}, epochs_run=3)
    assert Provenance.of(record) == PROVENANCE
    assert (record.run_id, record.path) == (made.run_id, str(made.folder))
    assert (record.k, record.epochs_run, record.seconds) == (5, 3, 1.5)
    assert {"medplus", "python", "torch", "numpy"} <= set(record.environment)


def test_a_plan_can_be_sent_to_another_process(plan):
    assert pickle.loads(pickle.dumps(plan())) == plan()  # noqa: S301 - our own


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_missing_is_claimed_and_the_rest_found(overwrite, plan):
    plans = [plan({"k": k}) for k in (1, 2)]
    save_run(plans[1].record({"val": {}, "test": {}}, 1.0, {}), {})
    with claim_missing(plans, overwrite) as found:
        assert [record is None for record in found] == [True, overwrite]
