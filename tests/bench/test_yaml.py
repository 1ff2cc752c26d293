"""Protocol files as YAML: what a value is, where it stands, and what is refused."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from richlearn.bench._yaml import MAX_BYTES, dump, load, read
from richlearn.errors import UsageError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("5E3", 5000.0),
        (".5", 0.5),
        ("-1.", -1.0),
        ("010", 10),
        ("0x1f", 31),
        ("0o17", 15),
        ("true", True),
        ("False", False),
        ("~", None),
        ("''", ""),
        ('"1e-3"', "1e-3"),
        ("-.inf", float("-inf")),
        *((word, word) for word in ("no", "yes", "on", "off", "y", "n", "1:30", "2020-01-01", "1_000", "tRUE", "e3", "1.2.3")),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    found = load(text, "f").data
    assert found == value
    assert type(found) is type(value)


def test_places_of_keys_and_values():
    source = load("a: 1\nb:\n  - {c: 2}\n", "f")
    assert source.keys["b", 0, "c"] == (3, 6)
    assert source.values["b", 0, "c"] == (3, 9)
    assert source.problem(("b", 0, "c"), "wrong") == "f:3:9: wrong"


def test_an_absent_value_is_placed_at_the_key_around_it():
    source = load("a: 1\nb:\n  c: 2\n", "f")
    assert source.problem(("b", "d"), "absent") == "f:2:1: absent"
    assert source.problem(("d",), "absent") == "f:1:1: absent"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a: [1", r"f:1:6: while parsing a flow sequence, expected ',' or '\]', but got '<stream end>'"),
        ("a:\n\t- 1", r"f:2:1: while scanning for the next token, found character '\\t' that cannot start any token"),
        ("a: 1\n---\nb: 2", "f:2:1: .*but found another document"),
        ("a: &x 1\nb: *x", r"f:2:4: alias `\*x` is not allowed"),
        ("a: &x {b: *x}", r"f:1:11: alias `\*x` is not allowed"),
        ("a: \x01", r"f:1:4: character .*1.* is not allowed"),
        ("a: 1\nb: \x01", r"f:2:4: character"),
        ("[" * 5000, r"f:1:33: nested deeper than 32 levels"),
        ("- " * 5000, r"f:1:65: nested deeper than 32 levels"),
        ("? " * 5000, r"f:1:65: nested deeper than 32 levels"),
        ("{a: " * 5000, "nested deeper than 32 levels"),
        ("x" * (MAX_BYTES + 1), "f:1:1: longer than 32 KiB"),
    ],
)
def test_unreadable_text_is_one_line_with_its_place(text, error):
    with pytest.raises(UsageError, match=error) as caught:
        load(text, "f")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("a: 1\nb: 2\na: 3", (3, 1), "`a`: duplicate key; it stands at line 1 as well"),
        ("a: {b: 1, b: 2}", (1, 11), "`a.b`: duplicate key; it stands at line 1 as well"),
        ("a: {<<: {b: 1}}", (1, 5), "`a`: merge key `<<` is not allowed; write the values out"),
        ("a: !!python/object/apply:os.system [ls]", (1, 4), "`a`: tag `!!python/object/apply:os.system` is not allowed"),
        ("a: !mine 1", (1, 4), "`a`: tag `!mine` is not allowed"),
        ("a: !!set {b}", (1, 4), "`a`: tag `!!set` is not allowed"),
        ("a: !!int b", (1, 4), "`a`: expected a value of kind int, got `b`"),
        ("a: " + "9" * 6000, (1, 4), "`a`: expected a value of kind int, got `" + "9" * 40 + "`"),
        ("1: a", (1, 1), "`the protocol`: a key must be text; put it in quotes"),
        ("? [a]\n: b", (1, 3), "`the protocol`: a key must be text; put it in quotes"),
    ],
)
def test_a_local_fault_is_collected(text, place, message):
    [(found_place, found_message)] = load(text, "f").problems
    assert found_place == place
    assert found_message.startswith(message)


def test_all_local_faults_are_collected():
    assert [place for place, _ in load("a: !x 1\na: 1\n<<: 2\n", "f").problems] == [(1, 4), (2, 1), (3, 1)]


def test_a_long_file_is_refused(tmp_path):
    (path := tmp_path / "long.yaml").write_bytes(b"a: 1\n" * 20_000)
    with pytest.raises(UsageError, match=r"long.yaml:1:1: longer than 32 KiB"):
        read(path)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (path := tmp_path / "binary.yaml").write_bytes(b"a: 1\nb: \xff\xfe")
    with pytest.raises(UsageError, match=r"binary.yaml:2:4: not UTF-8 text"):
        read(path)


@pytest.mark.parametrize(("name", "reason"), [("absent.yaml", "No such file"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, reason):
    with pytest.raises(UsageError, match=f"cannot be read: {reason}"):
        read(tmp_path / name)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    (path := Path(tmp_path / "bom.yaml")).write_bytes("\ufeffa: 1".encode())
    assert read(path).data == {"a": 1}


_SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=8)
_SCALARS |= st.sampled_from(["1e-3", "no", "~", "null", "1_0", ".inf", "<<", "=", "010", "0o7", "2020-01-01", "a: b", "*x", "&x", "!x"])


@settings(deadline=None)
@given(st.recursive(_SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)))
def test_what_is_dumped_loads_back(data):
    source = load(dump(data), "f")
    if not any("merge key" in message for _, message in source.problems):
        assert source.data == data
