"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from histospace_tf.config import Config
from histospace_tf.requests import FitRequest
from made.configs import tiny_config

if TYPE_CHECKING:
    from made.exports import Exported

# Before TensorFlow is imported: as the command line does.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


# What takes a training, every export, a browser or real sections takes its time.
SLOW_FIXTURES = {
    "small_run",
    "evaluated",
    "exported",
    "page",
    "test_data",
    "wheel_without_links",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks as slow what asks for a slow fixture; other slow tests say so themselves."""
    for item in items:
        if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real sections, slides and stains; see the README for what it holds."""
    named = os.environ.get("HISTOSPACE_TEST_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real test data is absent: no folder {folder} (HISTOSPACE_TEST_DATA names it)")
    return folder


@pytest.fixture(scope="session")
def small_tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated tissue of three patients, a section of 4 x 4 array positions each."""
    from histospace_tf.data_pipelines import simulation

    folder = tmp_path_factory.mktemp("simulated") / "tissue"
    simulation.simulate(folder, patients=3, spots_xy=(4, 4), seed=7)
    return folder


@pytest.fixture(scope="session")
def small_config() -> Config:
    """The recommended preset, cut down to seconds."""
    return tiny_config()


@pytest.fixture(scope="session")
def small_run(
    small_tissue: Path, small_config: Config, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run on that tissue, patient B held out."""
    from histospace_tf import fitting

    out = tmp_path_factory.mktemp("runs") / "run"
    fitting.fit(FitRequest(small_tissue, out, config=small_config, hold_out=["B"]))
    return out


@pytest.fixture
def unpublished(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without pages, figures and exports: where they are of no matter, others test them."""
    from histospace_tf import exporting, publishing

    monkeypatch.setattr(publishing, "pages", lambda *_, **__: None)
    monkeypatch.setattr(exporting, "export", lambda *_, **__: exporting.ExportReport((), (), 0, ""))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Of `made_export`; tests leave its files as they are."""
    from made.exports import made_export

    return made_export(tmp_path_factory.mktemp("export"))
