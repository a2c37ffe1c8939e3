"""Reading YAML: a mapping, or a sentence that says what is wrong with which file."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from medplus.errors import UsageError
from medplus.yamlfile import read_yaml


@pytest.fixture
def file(tmp_path):
    """Return a function that writes a file and returns its path."""

    def write(content):
        path = tmp_path / "my file.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def refusal(path):
    with pytest.raises(UsageError) as error:
        read_yaml(path, "recipe")
    message = str(error.value)
    assert message.startswith(f"the recipe file {path} ")
    assert "\n" not in message
    return message


def test_mapping_is_read(file):
    path = file("a: 1\nb: [x, 2.5]\nc: {d: null}\n# nothing\né: ü\n")
    assert read_yaml(path, "recipe") == {"a": 1, "b": ["x", 2.5], "c": {"d": None}, "é": "ü"}


def test_keys_are_text_whatever_yaml_makes_of_them(file):
    assert read_yaml(file("2: a\nyes: b\n2.5: c\n"), "recipe") == {
        "2": "a",
        "True": "b",
        "2.5": "c",
    }


@pytest.mark.parametrize("text", ["", "\n", "# only words\n", "---\n", "null", "~"])
def test_empty_file_is_an_empty_mapping(text, file):
    assert read_yaml(file(text), "recipe") == {}


@pytest.mark.parametrize("text", ["- a", "words", "7", "false", "[]", "''"])
def test_what_is_no_mapping_is_refused(text, file):
    assert "must map options to values" in refusal(file(text))


def test_missing_file(tmp_path):
    assert "does not exist" in refusal(tmp_path / "no.yaml")


def test_folder(tmp_path):
    assert "cannot be read: Is a directory" in refusal(tmp_path)


def test_file_within_a_file(file):
    assert "cannot be read: Not a directory" in refusal(file("a: 1") / "b.yaml")


@pytest.mark.parametrize(
    ("text", "line"), [("a: ]", 1), ("a: 1\nb: 2\n c: 3\n", 3), ("a: b: c", 1)]
)
def test_invalid_yaml_names_the_line(text, line, file):
    assert f"is not valid YAML at line {line}" in refusal(file(text))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x81", b"a: \x00", b"a: \xe9"])
def test_what_is_not_text_is_refused(content, file):
    assert "is not valid YAML" in refusal(file(content))


def test_two_documents_are_refused(file):
    assert "is not valid YAML" in refusal(file("a: 1\n---\nb: 2\n"))


def test_no_tag_runs_code(file, tmp_path):
    path = file(f"a: !!python/object/apply:pathlib.Path.touch ['{tmp_path}/evil']")
    assert "is not valid YAML" in refusal(path)
    assert not (tmp_path / "evil").exists()


@pytest.fixture(scope="module")
def one_folder(new_folder):
    return new_folder()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(document=st.dictionaries(st.text(), VALUES, max_size=5))
def test_any_mapping_comes_back(document, one_folder):
    path = one_folder / "any.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    assert read_yaml(path, "recipe") == document
