"""The folder of a run while it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from histospace_tf import runs
from histospace_tf.vocabulary import InputError

KNOWN = {"A1": {"image": "1", "spots_and_counts": "2"}, "B1": {"image": "3"}}


@pytest.mark.parametrize(
    ("now", "named"),
    [
        ({**KNOWN, "B1": {"image": "4"}}, "'B1'"),  # changed in place
        ({"A1": KNOWN["A1"]}, "'B1'"),
        ({**KNOWN, "C1": {"image": "5"}}, "'C1'"),  # a bad section that was mended
    ],
)
def test_a_run_is_not_resumed_on_other_data(
    tmp_path: Path, now: dict[str, dict[str, str]], named: str
) -> None:
    runs.refuse_other_data(tmp_path, KNOWN)
    runs.refuse_other_data(tmp_path, KNOWN)
    with pytest.raises(InputError, match=f"section {named}: not as it was"):
        runs.refuse_other_data(tmp_path, now)
    runs.refuse_other_data(tmp_path, KNOWN)  # what it began with stays known
    assert runs.DATA in runs.SCRATCH
