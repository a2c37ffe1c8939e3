"""Reading YAML: a mapping, or a sentence that says what is wrong with which file."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from medplus.errors import UsageError
from medplus.yamlfile import read_yaml, read_yaml_with_lines


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


@pytest.mark.parametrize(
    ("text", "line"), [("a: ]", 1), ("a: 1\nb: 2\n c: 3\n", 3), ("a: b: c", 1)]
)
def test_invalid_yaml_names_the_line(text, line, file):
    assert f"is not valid YAML at line {line}" in refusal(file(text))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x81", b"a: \x00", b"a: \xe9"])
def test_what_is_not_text_is_refused(content, file):
    assert "is not valid YAML" in refusal(file(content))


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


KEYS = st.text("abc", min_size=1, max_size=3)
NESTED = st.recursive(
    st.integers(0, 9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def write_block(value, place, written, lines):
    """Write a mapping or list in block style, and note the line of every value in it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    indent = "  " * len(place)
    for key, held in inner:
        is_block = bool(held) and not isinstance(held, int)
        mark = f"{key}:" if isinstance(value, dict) else "-"
        written.append(f"{indent}{mark}" if is_block else f"{indent}{mark} {held}")
        # What follows a dash begins on the next line; what follows a key is found at the key.
        after_dash = is_block and not isinstance(value, dict)
        lines[*place, key] = len(written) + after_dash
        if is_block:
            write_block(held, (*place, key), written, lines)


class TestLines:
    """Every value's line, counted from 1, by the keys and positions that lead to it."""

    def lines(self, path):
        document, lines = read_yaml_with_lines(path, "grid")
        assert document == read_yaml(path, "grid")
        return lines

    def test_block_style(self, file):
        text = "# a grid\na: 1\nb:\n  - x\n\n  - c: 2\n    d: 3\ne:\n  f:\n    g: 4\n"
        assert self.lines(file(text)) == {
            (): 2,
            ("a",): 2,
            ("b",): 3,
            ("b", 0): 4,
            ("b", 1): 6,
            ("b", 1, "c"): 6,
            ("b", 1, "d"): 7,
            ("e",): 8,
            ("e", "f"): 9,
            ("e", "f", "g"): 10,
        }

    def test_flow_style(self, file):
        assert self.lines(file("{a: 1, b: [x,\n  {c: 2,\n d: 3}],\n e: {f: 4}}")) == {
            (): 1,
            ("a",): 1,
            ("b",): 1,
            ("b", 0): 1,
            ("b", 1): 2,
            ("b", 1, "c"): 2,
            ("b", 1, "d"): 3,
            ("e",): 4,
            ("e", "f"): 4,
        }

    @pytest.mark.parametrize("text", ["", "# nothing\n"])
    def test_empty_file_has_none(self, text, file):
        assert read_yaml_with_lines(file(text), "grid") == ({}, {})

    @given(document=st.dictionaries(KEYS, NESTED, min_size=1, max_size=4))
    def test_every_value_has_the_line_that_it_was_written_on(self, document, one_folder):
        """Oracle: a writer that puts every key, dash and scalar on a line of its own."""
        path = one_folder / "lines.yaml"
        expected: dict[tuple[str | int, ...], int] = {(): 1}
        written: list[str] = []
        write_block(document, (), written, expected)
        path.write_text("\n".join(written), encoding="utf-8")
        found, lines = read_yaml_with_lines(path, "grid")
        assert (found, lines) == (document, expected)

    @pytest.mark.parametrize(
        ("text", "key", "line"),
        [
            ("a: 1\nb: 2\na: 3\n", "a", 3),
            ("a:\n  b: 1\n  c: 2\n  b: 1\n", "b", 4),
            ("a:\n- b: 1\n- b: 1\n  b: 2\n", "b", 4),
            ("{a: {b: 1,\n b: 2}}", "b", 2),
            ("1: a\n'1': b\n", "1", 2),
        ],
    )
    def test_key_that_is_given_twice_is_refused_with_its_line(self, text, key, line, file):
        assert f"gives '{key}' twice (line {line})" in refusal(file(text))

    def test_same_key_in_two_mappings_is_no_repetition(self, file):
        assert read_yaml(file("a: {b: 1}\nb: {b: 1}"), "recipe") == {
            "a": {"b": 1},
            "b": {"b": 1},
        }

    def test_alias_is_read_as_what_it_stands_for(self, file):
        path = file("a: &x\n  c: 1\nb: *x\n")
        document, lines = read_yaml_with_lines(path, "grid")
        assert document == {"a": {"c": 1}, "b": {"c": 1}}
        assert (lines["a", "c"], lines["b",]) == (2, 3)

    def test_merged_keys_may_be_given_again(self, file):
        assert read_yaml(file("a: &x {c: 1, d: 2}\nb:\n  <<: *x\n  c: 3\n"), "recipe")["b"] == {
            "c": 3,
            "d": 2,
        }

    @pytest.mark.parametrize("text", ["a: &a [*a]\n", "a: &a {b: *a}\n", "a: &a [[{c: *a}]]"])
    def test_value_that_holds_itself_ends(self, text, file):
        document, lines = read_yaml_with_lines(file(text), "grid")
        assert list(document) == ["a"]
        assert lines["a",] == 1
