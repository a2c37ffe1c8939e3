"""Whose data a report is made of."""

from __future__ import annotations

from pathlib import Path

from medplus.analysis.document import analyse
from medplus.analysis.load import benchmark_of, published
from medplus.analysis.results.runs import read_runs
from medplus.analysis.sources import sources_of, weights_of
from medplus.datasets import catalog
from medplus.reporting.page.links import PageLinks
from medplus.reporting.page.render import render_page
from medplus.run.ledger import save_run
from tests.analysis.ledgers import make_record


def test_licence_and_citation_of_each_dataset_reach_page_and_frame_escaped(tmp_path: Path) -> None:
    said = {"one": ("CC BY", "Me & <b>you</b> (2025)"), "two": ("", "")}
    for dataset, (licence, citation) in said.items():
        for seed in (1, 2):
            record = make_record(tmp_path, dataset=dataset, seed=seed, data="custom")
            # The first run is from before citations were recorded.
            about = {"licence": licence, "citation": citation if seed == 2 else ""}
            save_run(record.model_copy(update=about), {})
    benchmark = benchmark_of(read_runs(tmp_path), source="here")
    assert sources_of(benchmark).values.tolist() == [
        ["one", "custom", "CC BY", "Me & <b>you</b> (2025)"], ["two", "custom", "", ""],
    ]  # fmt: skip
    page = render_page(analyse(benchmark), PageLinks(), {})
    assert "Me &amp; &lt;b&gt;you&lt;/b&gt; (2025)</td>" in page
    assert "<b>you" not in page


def test_licences_of_weights_are_told_where_they_are_known(tmp_path: Path) -> None:
    for backbone, licence in (("uni", "CC-BY-NC-ND-4.0"), ("resnet18", "")):
        for seed in (1, 2):
            record = make_record(tmp_path, backbone=backbone, seed=seed)
            save_run(record.model_copy(update={"weights_licence": licence}), {})
    benchmark = benchmark_of(read_runs(tmp_path), source="here")
    assert weights_of(benchmark).values.tolist() == [["uni", "CC-BY-NC-ND-4.0"]]
    assert "CC-BY-NC-ND-4.0</td>" in render_page(analyse(benchmark), PageLinks(), {})
    assert weights_of(published()).empty


def test_the_papers_data_are_medmnists() -> None:
    rows = sources_of(published())
    assert list(rows["dataset"]) == list(catalog.FLAGS)
    assert list(rows["licence"]) == [catalog.info(name).licence for name in catalog.FLAGS]
    assert set(rows["citation"]) == {catalog.CITATION}
