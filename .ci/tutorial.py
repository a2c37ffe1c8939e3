"""Run a tutorial, and print it with what its commands and its code printed.

Usage: tutorial.py PAGE.md FOLDER, which is where the commands run.

A block ``console`` has commands, each after ``$``; a block ``python`` is a program of its own.
What they print, errors included, is put below them. ``console cut=2,9`` keeps the first two and
the last nine lines of what each prints, and says how many are left out.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

BLOCK = re.compile(r"^```(console|python)(?: cut=(\d+),(\d+))?\n(.*?)^```\n", re.M | re.S)
COMMAND = re.compile(r"^\$ ((?:.*\n)(?:^(?!\$ ).*\n)*)", re.M)
ENVIRONMENT = {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "COLUMNS": "88",
    "TERM": "dumb",
    "PYTHONUNBUFFERED": "1",
}


def executed(page: str, folder: Path) -> str:
    """Return the Markdown of a page with the output of its blocks, run in this order.

    Raises
    ------
    subprocess.CalledProcessError
        Where a command or a program fails.
    """
    return BLOCK.sub(lambda block: _with_output(block, folder), page)


def _with_output(block: re.Match[str], folder: Path) -> str:
    language, first, last, code = block.groups()
    keep = (int(first), int(last)) if first else None
    if language == "python":
        printed = _cut(_run([sys.executable, "-c", code], folder), keep)
        return f"```python\n{code}```\n" + (f"\n```text\n{printed}```\n" if printed else "")
    shown = ""
    for command in COMMAND.findall(code):
        printed = _run(["bash", "-o", "pipefail", "-c", command], folder)
        shown += f"$ {command}{_cut(printed, keep)}"
    return f"```console\n{shown}```\n"


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **ENVIRONMENT},
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        sys.stderr.write(done.stdout)
        raise subprocess.CalledProcessError(done.returncode, command)
    return done.stdout.replace(str(folder.resolve()), "/home/you")


def _cut(printed: str, keep: tuple[int, int] | None) -> str:
    lines = printed.splitlines()
    if keep and len(lines) > sum(keep) + 1:
        left = len(lines) - sum(keep)
        lines[keep[0] : len(lines) - keep[1]] = [f"… ({left} lines are left out here)"]
    return "".join(f"{line.rstrip()}\n" for line in lines)


if __name__ == "__main__":
    page, folder = sys.argv[1:]
    print(executed(Path(page).read_text(encoding="utf-8"), Path(folder)), end="")
