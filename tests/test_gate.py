"""A module of this process' paths runs in a new one, without what it should do without."""

from __future__ import annotations

from pathlib import Path

import pytest

from histospace_tf.exports import gate

SCRIPT = """
import os, sys
try:
    import csv
except ImportError:
    csv = None
print(__name__, sys.argv[1:], csv is None, os.environ["CUDA_VISIBLE_DEVICES"])
sys.exit(3)
"""


@pytest.mark.parametrize(("without", "absent"), [((), False), (("csv", "shelve"), True)])
def test_module_gets_its_arguments_and_lacks_what_it_should(
    without: tuple[str, ...], absent: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_script.py").write_text(SCRIPT)
    monkeypatch.syspath_prepend(str(tmp_path))
    done = gate.run_module("made_script", "a b", "c", without=without)
    assert done.stdout.strip() == f"__main__ ['a b', 'c'] {absent} -1"
    assert done.returncode == 3


def test_module_that_does_not_exist_is_reported() -> None:
    done = gate.run_module("no_such_module", without=["csv"])
    assert done.returncode != 0
    assert "no_such_module" in done.stderr
