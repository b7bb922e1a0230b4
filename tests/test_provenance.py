"""What a manifest records."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import platform
import time
from pathlib import Path

import pytest

import histospace_tf
from histospace_tf import provenance
from histospace_tf.vocabulary import Section
from made.tissue import section, spot_table


@pytest.fixture
def made(tmp_path: Path) -> Section:
    return section("A1", "A", folder=tmp_path)


def test_versions_name_this_package_python_and_every_library() -> None:
    found = provenance.versions()
    assert found["histospace-tf"] == histospace_tf.__version__
    assert found["python"] == platform.python_version()
    assert set(provenance.RECORDED) < set(found)
    assert found["numpy"] == importlib.metadata.version("numpy")


def test_a_library_under_another_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "RECORDED", ("no-such-library-here",))
    assert provenance.versions()["no-such-library-here"] == "unknown"


def test_machine_says_what_changes_the_last_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    found = provenance.machine()
    assert found["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert found["TF_NUM_INTRAOP_THREADS"] is None
    assert found["cpus"] >= 1


def test_image_checksum_is_that_of_the_file(made: Section) -> None:
    assert made.image is not None
    wanted = hashlib.sha256(made.image.read_bytes()).hexdigest()
    assert provenance.file_checksum(made.image) == wanted
    assert provenance.checksums([made])["A1"]["image"] == wanted


def test_same_data_have_the_same_checksums(made: Section) -> None:
    again = dataclasses.replace(made, spots=spot_table(made.spots.centres_px))
    assert provenance.checksums([made]) == provenance.checksums([again])


def test_a_section_without_an_image_has_a_checksum_of_its_table_alone() -> None:
    assert set(provenance.checksums([section("A1", "A")])["A1"]) == {"spots_and_counts"}


@pytest.mark.parametrize("part", ["names", "genes", "centres_px", "counts"])
def test_any_change_of_the_table_changes_its_checksum(made: Section, part: str) -> None:
    spots = made.spots
    counts = spots.counts.copy()
    counts.data[3] += 1
    changed = {
        "names": ("other", *spots.names[1:]),
        "genes": ("other", *spots.genes[1:]),
        "centres_px": spots.centres_px + 1e-3,
        "counts": counts,
    }
    other = dataclasses.replace(made, spots=dataclasses.replace(spots, **{part: changed[part]}))
    before, after = (provenance.checksums([s])["A1"] for s in (made, other))
    assert before["spots_and_counts"] != after["spots_and_counts"]
    assert before["image"] == after["image"]


def test_a_changed_image_changes_its_checksum_alone(made: Section) -> None:
    before = provenance.checksums([made])["A1"]
    assert made.image is not None
    with made.image.open("ab") as file:
        file.write(b"\0")
    after = provenance.checksums([made])["A1"]
    assert before["image"] != after["image"]
    assert before["spots_and_counts"] == after["spots_and_counts"]


def test_a_missing_image_is_named(made: Section) -> None:
    assert made.image is not None
    made.image.unlink()
    with pytest.raises(FileNotFoundError, match=r"A1\.png"):
        provenance.checksums([made])


def test_clock_adds_up_the_laps_of_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 2.0, 2.5, 6.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    clock = provenance.Clock()
    for stage in ("read", "tiles", "read"):
        clock.lap(stage)
    assert clock.seconds == {"read": 5.5, "tiles": 0.5}
