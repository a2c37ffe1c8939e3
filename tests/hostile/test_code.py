"""No part of medplus can run code that a file brings along, but the one that is there for it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import medplus

RUNS_CODE = {
    "eval", "exec", "execfile", "__import__", "pickle.load", "pickle.loads", "marshal.loads",
    "joblib.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.hub.load",
    "torch.jit.load", "torch.package.PackageImporter", "os.system", "os.popen", "pd.read_pickle",
    "runpy.run_path",
}  # fmt: skip
ALLOWED = {"backbones/sources/python.py: exec"}


def risks(tree: ast.AST) -> Iterator[str]:
    """Yield the calls in a module that could run what a file says."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name in RUNS_CODE or given.get("trust_remote_code", "False") != "False":
            yield name
        if name == "torch.load" and given.get("weights_only") != "True":
            yield name
        if name in ("np.load", "numpy.load") and given.get("allow_pickle", "False") != "False":
            yield name
        if given.get("shell", "False") != "False":
            yield f"{name} in a shell"


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(path)", "torch.load(path, weights_only=flag)", "np.load(p, allow_pickle=True)",
        "lambda: exec(code)", "subprocess.run(line, shell=True)", "pickle.loads(data)",
        "build(name, trust_remote_code=True)", "torch.hub.load(repository, name)",
    ],
)  # fmt: skip
def test_risks_are_seen(code):
    assert list(risks(ast.parse(code)))


@pytest.mark.parametrize("code", ["torch.load(path, weights_only=True)", "yaml.safe_load(text)",
                                  "build(name, trust_remote_code=False)"])  # fmt: skip
def test_what_is_safe_is_let_be(code):
    assert not list(risks(ast.parse(code)))


def test_nothing_runs_the_code_of_a_file_but_the_backbones_that_are_code():
    root = Path(medplus.__file__).parent
    found = {
        f"{path.relative_to(root).as_posix()}: {risk}"
        for path in root.rglob("*.py")
        for risk in risks(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == ALLOWED
