"""What takes no part, since it was made under other conditions."""

from __future__ import annotations

from medplus.analysis.benchmark import Benchmark
from medplus.analysis.results.select import UNLIKE_COLUMNS
from medplus.analysis.section import Section
from medplus.analysis.table import Table
from medplus.naming import counted


def left_out(benchmark: Benchmark) -> Section | None:
    """Return the cells that stand in no other table; None where there are none."""
    unlike = benchmark.unlike
    if not len(unlike):
        return None
    caption = "Results that stand in no other table, since they were made under other conditions"
    columns = " ".join(UNLIKE_COLUMNS)
    return Section(
        name="unlike",
        title="Left out: made under other conditions",
        short="Left out",
        text="These cells stand in no other table, since their numbers are not comparable with the "
        "others.",
        tables=(Table.of("unlike", caption, unlike, columns, hidden="conditions"),),
        notes=(
            f"{counted(len(unlike), 'cell')} made under other conditions stand in no other table; "
            "--only KEY=VALUE chooses other conditions.",
        ),
    )
