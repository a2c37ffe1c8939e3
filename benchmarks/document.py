"""docs/performance.md: the recorded ratios as tables, and how far they are from their goals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import record
from benchmarks.measure import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "performance.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def write_page() -> None:
    """Replace what stands between the marks of the page by what is recorded; redraw its figures."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    sections = [_section(path) for path in sorted(record.FOLDER.glob("*.json"))]
    PAGE.write_text(before + "\n\n".join([BEGIN, *sections, END]) + after)


def _section(path: Path) -> str:
    document = record.read(path)
    results = [Result(**entry) for kept in document["results"].values() for entry in kept["ratios"]]
    figure = DOCS / "performance" / f"{path.stem}.svg"
    _draw(figure, [r for r in results if r.sense is not None and not r.points])
    growths = [result for result in results if result.points]
    curves = figure.with_name(f"{path.stem}-growth.svg")
    if growths:
        _draw_growth(curves, growths)
    lines = [
        f"### {_title(document['machine'])}",
        "",
        _versions(document["machine"]),
        "",
        f"![How the ratios stand to their goals](performance/{figure.name})",
        "",
        *([f"![How costs grow](performance/{curves.name})", ""] if growths else []),
    ]
    for benchmark, kept in document["results"].items():
        lines += [
            f"#### {benchmark} ({kept['measured']})",
            "",
            "| what | median | range | goal | reached | medians |",
            "|---|---|---|---|---|---|",
            *(_row(Result(**entry)) for entry in kept["ratios"]),
            "",
        ]
    return "\n".join(lines).rstrip()


def _row(result: Result) -> str:
    reached = {True: "yes", False: "**no**", None: ""}[result.is_reached]
    spread = f"{min(result.ratios):.3g}–{max(result.ratios):.3g}"
    return (
        f"| {result.name} | {result.median:.3g} | {spread} | {result.goal} | {reached} | "
        f"{result.detail} |"
    )


def _title(machine: dict[str, Any]) -> str:
    names = dict.fromkeys((machine["cpu"], machine["device"]))
    return " · ".join(names)


def _versions(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in machine["versions"].items())
    bf16 = "with" if machine["native_bf16_cpu"] else "without"
    return f"{versions}; CPU {bf16} native bf16, {machine['threads']} threads."


def _draw(path: Path, results: list[Result]) -> None:
    """Draw each ratio as a share of its goal, on a log scale: right of 1 is better."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.9 + 0.32 * len(results)), layout="constrained")
    axes = figure.add_subplot()
    for row, result in enumerate(reversed(results)):
        bound = float(result.goal.split()[1])
        shares = [r / bound if result.sense == "≥" else bound / r for r in result.ratios]
        middle = result.median / bound if result.sense == "≥" else bound / result.median
        colour = "#2a78d6" if middle >= 1 else "#c4442c"
        axes.plot([min(shares), max(shares)], [row, row], color=colour, linewidth=1.5)
        axes.plot(middle, row, "o", color=colour, markersize=5)
    axes.axvline(1, color="0.4", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(results)), [_short(r.name) for r in reversed(results)], fontsize=7)
    axes.set_xlabel("how far the goal is reached (1: just reached, right: better)", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _draw_growth(path: Path, growths: list[Result]) -> None:
    """Draw costs over sizes, log-log, each beside a line of slope 1 through its last point."""
    from matplotlib.figure import Figure

    columns = 3
    rows = -(-len(growths) // columns)
    figure = Figure(figsize=(9, 2.6 * rows), layout="constrained")
    for axes, result in zip(
        figure.subplots(rows, columns, squeeze=False).flat, growths, strict=False
    ):
        x, y = zip(*result.points, strict=True)
        axes.loglog(x, [y[-1] * size / x[-1] for size in x], color="0.75", linewidth=1)
        axes.loglog(x, y, "o-", color="#2a78d6", markersize=4, linewidth=1.5)
        axes.set_title(f"{_short(result.name)}: {result.median:.2f}", fontsize=7)
        axes.set_xticks(x, [f"{size:,.0f}" for size in x])
        axes.minorticks_off()
        axes.tick_params(labelsize=6)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in figure.axes[len(growths) :]:
        axes.remove()
    figure.supxlabel("size (grey: slope 1)", fontsize=7)
    figure.supylabel("seconds, or GB of memory", fontsize=7)
    _save(figure, path)


def _short(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:79]}…"


def _save(figure: Figure, path: Path) -> None:
    """Write the same bytes for the same figure: no date, and no random ids."""
    import matplotlib

    path.parent.mkdir(exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "medplus"}):
        figure.savefig(path, metadata={"Date": None})
