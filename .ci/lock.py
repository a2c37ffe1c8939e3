"""Print constraints.txt from what pip would install afresh: `make lock`.

Usage: lock.py REPORT, which `pip install --dry-run --ignore-installed --report REPORT …` wrote.
"""

import json
import re
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Machines differ in the builds of torch that they can run: the range that the tests passed with.
RANGES = {"torch": ">=2.14,<2.16", "torchvision": ">=0.29,<0.30"}

# Libraries of CUDA, which torch or faiss-gpu choose: not NVIDIA's plain Python packages.
OF_CUDA = re.compile(r"(nvidia|cuda)-.*|triton")
KEPT = {"nvidia-ml-py"}

HEADER = """\
# What the tests were run with; written by `make lock`, do not edit by hand.
# Resolved for Python {python}, and good for newer ones; used by `make install`.
# Machines differ in the builds of torch that they can run: it has a range, and what it needs
# follows it.
"""


def needed(packages: dict[str, dict], python: dict[str, str]) -> set[str]:
    """Names of what 'medplus[dev,docs]' needs: torch and torchvision, but not their own needs."""
    found: set[str] = set()
    queue = [("medplus", frozenset({"dev", "docs"}))]
    seen = set(queue)
    while queue:
        name, extras = queue.pop()
        found.add(name)
        if name in RANGES:
            continue
        for line in packages[name].get("requires_dist", []):
            requirement = Requirement(line)
            marker = requirement.marker
            if marker and not any(
                marker.evaluate({**python, "extra": extra}) for extra in ("", *extras)
            ):
                continue
            further = (canonicalize_name(requirement.name), frozenset(requirement.extras))
            if further not in seen:
                seen.add(further)
                queue.append(further)
    return found


def main() -> None:
    """Read pip's report, print the constraints."""
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    packages = {
        canonicalize_name(item["metadata"]["name"]): item["metadata"] for item in report["install"]
    }
    names = needed(packages, report["environment"]) - {"medplus"}
    print(HEADER.format(python=report["environment"]["python_version"]), end="")
    for name in sorted(names):
        if name in KEPT or not OF_CUDA.fullmatch(name):
            print(f"{name}{RANGES.get(name) or '==' + packages[name]['version']}")


if __name__ == "__main__":
    main()
