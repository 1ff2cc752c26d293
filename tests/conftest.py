"""What all tests share: shapes in the signatures of the mathematical rooms are checked at run time; runs that none may change."""

from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Before anything imports these rooms: so runs are imported by the fixtures that need them.
install_import_hook(["richlearn.theory", "richlearn.kernels", "richlearn.conservation", "richlearn.networks.spaces"], "beartype.beartype")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the tiny protocol."""
    from tiny_runs import go

    return go(tmp_path_factory.mktemp("finished")).folder.path


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a learning-rate search, of two rows."""
    from tiny_runs import SEARCHED, go

    rows = "schemes=[{name: standard}, {name: unbalanced, parameters: {tau: 0.5}}]"
    return go(tmp_path_factory.mktemp("searched"), SEARCHED, rows).folder.path
