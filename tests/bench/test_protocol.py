"""Protocols: rows, seeds, hash, resolved text, overrides, smoke, and the suite's own benchmarks."""

import json
import math
import subprocess
import sys

import pytest
import yaml

from richlearn import catalog
from richlearn.bench import protocol as protocols
from richlearn.bench._yaml import load as load_yaml
from richlearn.bench.protocol import Protocol, json_schema, load, names, override, parse, suite_folder
from richlearn.bench.smoke import smoke
from richlearn.errors import UsageError

MINIMAL = """
name: tiny
task: {name: teacher_student, parameters: {train_size: 20}}
network: {name: two_layer}
schemes:
  - {name: unbalanced, grid: {tau: {logspace: [0.1, 10, 3]}, delta: [-1, 0.5]}}
  - {name: standard}
seeds: 0-1
training: {steps: 1e3}
optimizer: {lr: 1e-3}
"""


def tiny(text: str = MINIMAL, *options: str) -> Protocol:
    source = load_yaml(text, "tiny.yaml")
    for option in options:
        source = override(source, option)
    return parse(source)


def test_rows_are_all_combinations_in_the_protocols_order():
    labels = [row.label for row in tiny().cells()]
    assert labels[:3] == ["unbalanced(tau=0.1, delta=-1)", "unbalanced(tau=0.1, delta=0.5)", "unbalanced(tau=1, delta=-1)"]
    assert labels[-1] == "standard"
    assert len(labels) == 7


def test_a_row_holds_the_fixed_and_the_swept_parameters():
    row = tiny(MINIMAL.replace("grid: {tau: {logspace: [0.1, 10, 3]},", "parameters: {tau: 2}, grid: {")).cells()[0]
    assert (row.name, row.parameters, row.path) == ("unbalanced", {"tau": 2, "delta": -1.0}, ("schemes", 0))


def test_log_spaced_values_are_the_papers():
    tau = load("teacher_student").schemes[0].grid["tau"]
    assert all(math.isclose(value, 10 ** (-1 + 1.3 * index / 16), rel_tol=1e-11) for index, value in enumerate(tau))
    assert all(value == float(f"{value:.12g}") for value in tau)


@pytest.mark.parametrize(
    ("written", "meant"),
    [("0-3", (0, 1, 2, 3)), ("0,2,5-7", (0, 2, 5, 6, 7)), ("7", (7,)), ("[3, 1]", (3, 1)), ("[0-1, 5]", (0, 1, 5))],
)
def test_seeds_have_a_short_form(written, meant):
    assert tiny(MINIMAL.replace("0-1", written)).seeds == meant


def test_whole_floats_are_counts_and_absent_sections_have_defaults():
    protocol = tiny()
    assert protocol.training.steps == 1000
    assert type(protocol.training.steps) is int
    assert (protocol.goal.fraction_of_zero_predictor, protocol.optimizer.name, protocol.search) == (0.1, "sgd", None)


@pytest.mark.parametrize(
    "option", ["name=other", "summary=text", "figure=9z", "seeds=4-9", "figures=[]", "schemes.0.grid.tau=[0.1, 1.0, 10]"]
)
def test_hash_leaves_out_texts_seeds_figures_and_ways_of_writing(option):
    assert tiny(MINIMAL, option).hash == tiny().hash


@pytest.mark.parametrize("option", ["training.steps=999", "optimizer.lr=2e-3", "schemes.0.grid.delta=[0, 0.5]", "training.threads=2"])
def test_hash_sees_what_changes_a_result(option):
    assert tiny(MINIMAL, option).hash != tiny().hash


def test_content_differs_where_the_protocols_do():
    content, other = tiny().content(), tiny(MINIMAL, "training.steps=999").content()
    assert [key for key in content if content[key] != other[key]] == ["training"]


@pytest.mark.parametrize("name", list(names()))
def test_resolved_text_loads_back_to_the_same_protocol(name):
    protocol = load(name)
    again = parse(load_yaml(protocol.resolved_yaml(), "resolved.yaml"))
    assert again == protocol
    assert again.hash == protocol.hash
    assert again.cells() == protocol.cells()


def test_resolved_text_holds_every_default():
    data = yaml.safe_load(tiny().resolved_yaml())
    assert list(data) == [name for name in Protocol.model_fields if name not in Protocol.if_given]
    assert data["regime"] == {"kernel": 0.1, "fit": 0.5, "delay": 2.0}


def test_protocols_are_immutable():
    with pytest.raises(ValueError, match="frozen"):
        tiny().seeds = (1,)


@pytest.mark.parametrize(("text", "row"), [("standard", "standard"), ("unbalanced(tau=1, delta=-1)", "unbalanced(tau=1, delta=-1)")])
def test_the_baseline_is_a_name_or_a_label(text, row):
    found = tiny(MINIMAL + f"baseline: {text}").baseline_row()
    assert found is not None
    assert found.label == row
    assert tiny().baseline_row() is None


def test_components_may_come_from_a_users_file(tmp_path):
    (path := tmp_path / "mine.py").write_text("class Mine: pass")
    protocol = tiny(MINIMAL.replace("standard", f"{path}:Mine").replace("two_layer", f"{path}:Net"))
    assert protocol.cells()[-1].name == f"{path}:Mine"
    assert protocol.network.name == f"{path}:Net"


def test_a_later_error_gets_the_place_of_its_value():
    protocol = tiny(MINIMAL, "optimizer.lr=5")
    assert protocol.problem(("schemes", 0, "grid", "tau"), "negative") == "tiny.yaml:6:36: negative"
    assert protocol.problem(("optimizer", "lr"), "large") == "--set optimizer.lr=5: large"
    assert Protocol.model_validate(protocol.model_dump(mode="json")).problem(("seeds",), "bad") == "bad"


def test_overrides_reach_lists_and_absent_sections():
    protocol = tiny(MINIMAL, "schemes.1.name=kaiming", "search.values=5", "seeds=3")
    assert protocol.cells()[-1].name == "kaiming"
    assert protocol.search is not None
    assert (protocol.search.values, protocol.seeds) == (5, (3,))


@pytest.mark.parametrize("name", list(names()))
def test_smoke_keeps_the_path_and_cuts_the_work(name):
    protocol = load(name)
    small = smoke(protocol)
    assert small.budget() * len(small.seeds) * len(small.cells()) <= 200 * 2 * 19
    assert max(small.train_sizes, default=0) <= 128
    assert (small.name, small.task.name, small.figures, small.scores) == (
        protocol.name,
        protocol.task.name,
        protocol.figures,
        protocol.scores,
    )
    assert {scheme.name for scheme in small.schemes} == {scheme.name for scheme in protocol.schemes}
    assert smoke(small) == small


def test_smoke_drops_a_baseline_that_it_cuts_away():
    assert smoke(tiny(MINIMAL + "baseline: unbalanced(tau=1, delta=-1)")).baseline is None
    assert smoke(tiny(MINIMAL + "baseline: standard")).baseline == "standard"


def test_the_suites_benchmarks_have_their_files_name_and_a_summary():
    assert set(names()) >= {"quick", "teacher_student", "teacher_student_9x9", "teacher_student_2d", "schemes_teacher_student"}
    assert all(load(name).name == name and entry.summary for name, entry in names().items())


def test_the_scheme_benchmark_has_every_scheme():
    others = {"single_unit", "isotropic", "embedding_scale"}  # starts of theory, for linear networks; a scale of transformers
    assert {row.name for row in load("schemes_teacher_student").cells()} == set(catalog.SCHEMES.own) - others


def test_an_installed_package_holds_its_benchmarks(tmp_path, monkeypatch):
    (tmp_path / "benchmarks").mkdir()
    monkeypatch.setattr(protocols, "__file__", str(tmp_path / "bench" / "protocol.py"))
    assert suite_folder() == tmp_path / "benchmarks"


def test_a_path_finds_a_users_protocol(tmp_path):
    (path := tmp_path / "mine.yaml").write_text(MINIMAL)
    assert load(path, ["name=mine"]).name == "mine"


def test_the_committed_json_schema_is_current():
    text = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    assert (suite_folder() / "protocol.schema.json").read_text(encoding="utf-8") == text, "write the text above to this file"


def test_every_key_is_described_in_the_json_schema():
    schema = json_schema()
    for section in (schema, *schema["$defs"].values()):
        assert section["description"]
        for name, about in section["properties"].items():
            assert about.get("description") or "$ref" in about, name


def test_limits_stand_in_the_json_schema():
    steps = json_schema()["$defs"]["Training"]["properties"]["steps"]
    assert (steps["anyOf"][0]["type"], steps["anyOf"][0]["minimum"]) == ("integer", 1)


def test_checking_a_protocol_does_not_import_torch():
    code = (
        "import sys, richlearn.bench.protocol as p; p.load('quick'); print([m for m in ('torch', 'numpy', 'pandas') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_every_suite_file_points_editors_to_the_schema():
    for path in suite_folder().glob("*.yaml"):
        assert path.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=protocol.schema.json\n")


def test_unknown_benchmark_names_the_nearest():
    with pytest.raises(UsageError, match=r"unknown benchmark `quik`; did you mean `quick`\?"):
        load("quik")
