"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before TensorFlow is imported: as the command line does.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real sections, slides and stains; see the README for what it holds."""
    named = os.environ.get("HISTOSPACE_TEST_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real test data is absent: no folder {folder} (HISTOSPACE_TEST_DATA names it)")
    return folder
