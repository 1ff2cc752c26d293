"""docs/theory.md names every public result, and its figures and benchmarks exist."""

import re
from pathlib import Path

import pytest

from richlearn import theory
from richlearn.bench.protocol import names

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
TABLED = [line for line in TEXT.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize("name", theory.__all__)
def test_every_public_name_stands_in_a_table(name):
    assert any(f"`{name}`" in line for line in TABLED)


def test_no_table_names_what_is_not_there():
    functions = [name for line in TABLED for name in re.findall(r"`([A-Za-z_]+)(?:\.[a-z_]+)?`", line.split(" | ")[1])]
    assert not set(functions) - set(theory.__all__) - {"function"}


def test_every_check_is_a_benchmark_or_the_tests():
    checks = {line.rstrip(" |").split(" | ")[-1] for line in TABLED if "checked by" not in line and "---" not in line}
    named = {name for check in checks for name in re.findall(r"`([a-z_]+)`", check)}
    assert named <= set(names())
    assert {"single_neuron", "hyperboloids", "low_rank_bias", "linear_funnels", "deep_linear", "xor_partition"} == named


def test_its_figures_are_committed():
    figures = re.findall(r"!\[[^]]*\]\(\.\./([^)]+)\)", TEXT)
    assert len(figures) == 6
    assert all((ROOT / figure).is_file() for figure in figures)
