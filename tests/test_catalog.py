"""The index of components: names, a user's own files, other packages, and what identifies their numerics."""

import importlib.metadata
import subprocess
import sys

import pytest
from tiny_runs import SCHEME

from richlearn import catalog
from richlearn.catalog import METRICS, NETWORKS, PREDICTIONS, SCHEMES, TASKS
from richlearn.errors import UsageError

KINDS = {kind.kind: kind for kind in (SCHEMES, NETWORKS, TASKS, METRICS, PREDICTIONS)}
ALL = [(kind, name) for kind, each in KINDS.items() for name in each.own]


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_every_entry_is_a_class_with_a_meaning(kind, name):
    assert isinstance(KINDS[kind].load(name), type)
    assert KINDS[kind].own[name].summary
    assert KINDS[kind].version(name) == KINDS[kind].own[name].numerics


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(UsageError, match="unknown scheme `upstraem`; did you mean `upstream`"):
        SCHEMES.load("upstraem")


def write(folder, text=SCHEME):
    (path := folder / "mine.py").write_text(text)
    return f"{path}:Mine"


def test_a_users_dataclass_with_postponed_annotations_loads(tmp_path):
    assert SCHEMES.load(write(tmp_path))().scale == 0.5


def test_a_users_file_is_executed_once(tmp_path):
    assert SCHEMES.load(write(tmp_path)) is SCHEMES.load(write(tmp_path))


def test_a_file_changed_within_a_second_is_read_anew_and_leaves_no_bytecode(tmp_path):
    found = [SCHEMES.load(write(tmp_path, SCHEME.replace("0.5", text)))().scale for text in ("0.5", "0.7")]
    assert found == [0.5, 0.7]
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(:", "cannot be imported: SyntaxError"),
        ("import nothing_of_that_name", "cannot be imported: ModuleNotFoundError"),
        ("1 / 0", "cannot be imported: ZeroDivisionError"),
        ("class Mien: pass", "has no class `Mine`; did you mean `Mien`"),
        ("Mine = 3", "has no class `Mine`"),
    ],
)
def test_a_users_file_that_cannot_serve_is_told_in_one_line(text, message, tmp_path):
    with pytest.raises(UsageError, match=message) as refused:
        SCHEMES.load(write(tmp_path, text))
    assert len(str(refused.value).splitlines()) == 1


def test_a_file_that_failed_is_tried_again(tmp_path):
    name = write(tmp_path, "1 / 0")
    for _ in range(2):
        with pytest.raises(UsageError, match="ZeroDivisionError"):
            SCHEMES.load(name)


def test_a_file_must_exist(tmp_path):
    with pytest.raises(UsageError, match=r"network file `.*nothing\.py` does not exist"):
        NETWORKS.check(f"{tmp_path}/nothing.py:Net")


class Point:
    """An entry point of an installed package."""

    def __init__(self, name, value):
        self.name, self.value, self.dist = name, value, type("Dist", (), {"name": "other", "version": "2.1"})


@pytest.fixture
def installed(monkeypatch):
    points = [Point("theirs", "richlearn.schemes:Standard"), Point("standard", "os:path")]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group, name=None: [p for p in points if name in (None, p.name)])


@pytest.mark.usefixtures("installed")
def test_a_package_adds_a_name_and_replaces_none():
    assert SCHEMES.entries()["theirs"].summary == "from package other"
    assert SCHEMES.load("theirs") is SCHEMES.load("standard")
    assert (SCHEMES.version("theirs"), SCHEMES.version("standard")) == ("other 2.1", 1)


def test_a_name_of_the_suite_is_found_without_looking_through_packages(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: pytest.fail("it looked"))
    SCHEMES.check("standard")
    assert (SCHEMES.version("standard"), SCHEMES.load("standard").__name__) == (1, "Standard")


def test_numerics_are_whole_numbers():
    assert all(type(version) is int for version in (catalog.TRAINING_NUMERICS, catalog.MEASURING_NUMERICS))


@pytest.mark.parametrize("what", ["import richlearn", "from richlearn.cli import app, list_; list_(); list_(as_json=True)"])
def test_names_are_listed_without_the_heavy_libraries(what):
    code = f"{what}\nimport sys\nprint('heavy', sorted({{'torch', 'lightning', 'pandas', 'matplotlib', 'scipy'}} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "heavy []"


@pytest.mark.parametrize("name", catalog.TASKS.own)
def test_a_tasks_loss_is_called_what_the_index_says(name):
    assert catalog.TASKS.own[name].loss == catalog.TASKS.load(name).loss.name
