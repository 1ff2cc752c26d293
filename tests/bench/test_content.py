"""Canonical text and hashes of content, and the differences between two contents."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from richlearn.bench.content import canonical_json, content_hash, differences
from richlearn.errors import ParameterError

leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(codec="utf-8"))
)
contents = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner), max_leaves=10
)


@given(contents)
def test_canonical_text_round_trips(content):
    assert json.loads(canonical_json(content)) == content


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), leaves))
def test_order_of_keys_does_not_count(content):
    assert content_hash(dict(reversed(content.items()))) == content_hash(content)


def test_hash_is_the_sha256_of_the_text():
    assert content_hash({"b": [1, 0.1], "a": "ü"}) == hashlib.sha256('{"a":"ü","b":[1,0.1]}'.encode()).hexdigest()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, b"x", "\ud800"])
def test_what_has_no_json_is_refused(value):
    with pytest.raises(ParameterError, match="cannot be hashed"):
        canonical_json({"value": value})


def test_keys_must_be_text():
    with pytest.raises(ParameterError, match=r"key `a.\[0\].1` of a content to hash must be text, not int"):
        canonical_json({"a": [{1: 2}]})


@given(contents)
def test_equal_contents_do_not_differ(content):
    assert differences(content, json.loads(canonical_json(content))) == []


def test_differences_name_dotted_keys_and_both_values():
    there = {"a": {"b": 1, "c": [1, 2]}, "long": "x" * 200, "gone": True}
    here = {"a": {"b": 2, "c": [1, 3]}, "long": "y", "new": None}
    assert differences(there, here) == [
        "`a.b` is 1 there, 2 here",
        "`a.c[1]` is 2 there, 3 here",
        "`gone` is true there, absent here",
        f"`long` is {'x' * 79}… there, y here",
        "`new` is absent there, null here",
    ]


def test_lists_of_unlike_length_differ_as_a_whole():
    assert differences({"seeds": [0, 1]}, {"seeds": [0]}) == ["`seeds` is [0, 1] there, [0] here"]
