"""What is told of a packaged model: a model card, and its data in Croissant's words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from medplus._version import __version__
from medplus.analysis.panel import examine
from medplus.datasets.exclusion import read_rows
from medplus.naming import counted
from medplus.prediction.model import Model
from medplus.reporting.markup import markdown, markdown_table
from medplus.run.record import RunRecord

_PROTOCOLS = {
    "knn": "k nearest neighbours on frozen embeddings",
    "probe": "a linear head on frozen embeddings",
    "finetune": "a network that was fine-tuned end to end",
}


_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{
        word: f"cr:{word}"
        for word in (
            "citeAs", "column", "equivalentProperty", "extract", "field", "fileObject",
            "fileProperty", "fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key",
            "md5", "parentField", "path", "recordSet", "references", "regex", "repeated", "replace",
            "samplingRate", "separator", "source", "subField", "transform",
        )
    },
}  # fmt: skip
"""That of Croissant 1.0; readers compare it with their own."""


def model_card(
    model: Model,
    patterns: float,
    test: float | None,
    *,
    positive: str | None = None,
    by: str | Sequence[str] = (),
    audit: str | Path | None = None,
) -> str:
    """Return the card in Markdown, with the metadata that the Hugging Face hub reads.

    Parameters
    ----------
    patterns, test : float
        The largest differences of scores that were found.
    positive, by, audit
        As for `medplus.packaging.package`.

    References
    ----------
    .. [1] Mitchell et al., "Model cards for model reporting", FAT* 2019, 220-229.
    """
    record = model.record
    parts = [
        _metadata(record),
        f"# {record.backbone} on {record.dataset}\n",
        _what(model),
        _USE,
        _data(record, audit),
        _scores_of(model, positive, by),
        _limits(model),
        _reproduce(record, patterns, test),
    ]
    return "\n".join(parts)


def _metadata(record: RunRecord) -> str:
    metrics = [
        {"type": kind, "value": round(record.metrics["test"][name], 4), "name": name.upper()}
        for kind, name in (("accuracy", "acc"), ("roc_auc", "auc"))
        if record.metrics.get("test", {}).get(name) is not None
    ]
    data = {"type": record.dataset, "name": record.dataset, "split": "test"}
    result = {"task": {"type": "image-classification"}, "dataset": data, "metrics": metrics}
    document = {
        "license": "other",
        "license_name": "see-backbone-and-data",
        "library_name": "onnx",
        "pipeline_tag": "image-classification",
        "tags": ["medical-imaging", "medplus", record.protocol],
        "datasets": [record.dataset],
        "metrics": ["accuracy", "roc_auc"],
        "model-index": [{"name": record.run_id, "results": [result]}],
    }
    return f"---\n{yaml.safe_dump(document, sort_keys=False, allow_unicode=True)}---\n"


def _what(model: Model) -> str:
    record = model.record
    size, colour = record.size, "grey" if model.reading.channels == "grey" else "RGB"
    classes = "\n".join(f"{i}. {markdown(name)}" for i, name in enumerate(record.classes))
    return (
        f"{_PROTOCOLS[record.protocol].capitalize()}: backbone `{record.tag}` "
        f"(weights: {markdown(record.weights)}), images of {size} × {size} px, {colour}. "
        f"Task: {record.task}. Classes, in the order of the scores:\n\n{classes}\n\n"
        '```python\nfrom medplus_model import Model\n\nmodel = Model(".")\n'
        'scores = model.predict(model.read(["image.png"]))\nprint(model.labels(scores))\n```\n'
    )


_USE = (
    "## Intended use\n\n"
    "A prototype for research on images like those of its data. It is no medical device, was not "
    "validated clinically, and must not decide about anyone. Its weights come from others: their "
    "licence, and that of the data, bind whoever uses or passes on this model.\n"
)


def _data(record: RunRecord, audit: str | Path | None) -> str:
    lines = [
        "## Data\n",
        f"- {markdown(record.dataset)} ({record.data_source}); licence: "
        f"{markdown(record.licence) or 'not known'}",
    ]
    lines.append(
        f"- The backbone's weights; licence: {markdown(record.weights_licence) or 'not known'}"
    )
    if record.citation:
        lines.append(f"- {markdown(record.citation)}")
    lines += [f"- Careful: {markdown(text)}" for text in record.warnings]
    lines.append(f"- {_audited(audit)}")
    return "\n".join(lines) + "\n"


def _audited(audit: str | Path | None) -> str:
    if audit is None:
        return "The data were not audited for this package (`medplus audit`)."
    kinds = Counter(row["kind"] for row in read_rows(Path(audit)))
    told = ", ".join(f"{n} of {markdown(kind)}" for kind, n in kinds.most_common())
    return f"An audit found {counted(kinds.total(), 'suspect')}" + (f": {told}." if told else ".")


def _scores_of(model: Model, positive: str | None, by: str | Sequence[str]) -> str:
    found = examine(model.path, positive, None, by)
    lines = ["## Results\n"]
    for section in found.sections(None)[: 1 + bool(by)]:
        lines += [*(f"- {markdown(text)}" for text in section.sentences), ""]
        lines += [markdown_table(table.blocks) for table in section.tables if table.blocks]
    if not by:
        lines.append("Subgroups were not looked at (`medplus package --by COLUMN`).\n")
    return "\n".join(lines)


def _limits(model: Model) -> str:
    record = model.record
    lines = [
        "## Limits\n",
        f"- Scored on {counted(len(model.predictions['test_index']), 'test image')} of the same "
        "source as those it has learned from; other scanners and other patients may differ.",
        f"- It always answers with one of {len(record.classes)} classes, also of images that are "
        "of none. `medplus predict` tells how far an image is from those it has learned from.",
    ]
    if model.temperature is not None:
        lines.append(
            f"- Scores at the temperature {model.temperature:.2f}, fitted on val, are "
            "`predict(…, calibrated=True)`."
        )
    lines += [f"- {markdown(note)}" for note in model.notes]
    return "\n".join(lines) + "\n"


def _reproduce(record: RunRecord, patterns: float, test: float | None) -> str:
    against = (
        "the run's test images were not at hand"
        if test is None
        else f"{test:.1e} at most from the run's saved test predictions"
    )
    return (
        "## How to make it again\n\n"
        f"Run `{record.run_id}` of medplus {__version__}; embeddings: `{record.spec.command()}`. "
        f"Data: SHA-256 `{record.dataset_digest}`; weights: `{record.weights_sha256}`.\n\n"
        f"Checked when it was packaged: scores differ by {patterns:.1e} at most from medplus's own "
        f"in fp32 on test patterns; {against}. `python medplus_model.py --check` repeats it.\n"
    )


def croissant(record: RunRecord) -> dict[str, Any]:
    """Return the data of a run in the words of Croissant 1.0: what they are, and their classes.

    The images themselves are not described: a package has none.

    References
    ----------
    .. [1] Akhtar et al., "Croissant: a metadata format for ML-ready datasets", DEEM 2024.
    """
    words = (
        f"{record.task}, {record.size} px, classes: {', '.join(record.classes)}.", *record.warnings,
    )  # fmt: skip
    fields = {"index": "sc:Integer", "name": "sc:Text"}
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": record.dataset,
        "description": " ".join(words),
        "license": record.licence or "not known",
        "url": f"urn:sha256:{record.dataset_digest}",
        "citeAs": record.citation,
        "version": "1.0.0",
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "classes",
                "name": "classes",
                "key": {"@id": "classes/index"},
                "field": [
                    {"@type": "cr:Field", "@id": f"classes/{name}", "name": name, "dataType": kind}
                    for name, kind in fields.items()
                ],
                "data": [
                    {"classes/index": index, "classes/name": name}
                    for index, name in enumerate(record.classes)
                ],
            }
        ],
    }
