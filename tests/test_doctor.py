"""`doctor`: what it says of this installation, and of one that computes wrongly."""

from __future__ import annotations

import numpy as np
import pytest

from histospace_tf import doctor, faults

pytestmark = pytest.mark.slow


def test_this_installation_is_sound() -> None:
    diagnosis = doctor.examine()
    assert diagnosis.exit_code == faults.DONE, diagnosis.text()
    for words in ("tensorflow 2.", "processors", "GB free", "two tiles of 224 px", "SciPy's"):
        assert words in diagnosis.text()


def test_wrong_convolution_and_values_that_are_no_numbers_are_faults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "convolved", lambda tile, kernel: np.zeros((32, 32, 4)))
    broken = np.full((32, 32, 4), np.nan)
    *_, predicted, convolved = doctor._self_test()
    assert (predicted.state, convolved.state) == (doctor.OK, doctor.FAULT)
    monkeypatch.setattr(doctor, "convolved", lambda tile, kernel: broken)
    assert doctor._self_test()[-1].state == doctor.FAULT
    assert doctor.Diagnosis((doctor.Finding(doctor.FAULT, ""),)).exit_code == faults.FAULT


def test_convolution_is_cross_correlation_with_zeros_around() -> None:
    tile = np.arange(9.0).reshape(3, 3, 1)
    kernel = np.zeros((3, 3, 1, 1))
    kernel[0, 1] = 1  # the pixel above
    np.testing.assert_array_equal(
        doctor.convolved(tile, kernel)[..., 0], [[0, 0, 0], [0, 1, 2], [3, 4, 5]]
    )


def test_little_room_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_ROOM", np.inf)
    assert {f.state for f in doctor._room()[1:]} == {doctor.NOTE}
