"""Between which values a gene lies: widths from held-out groups, and what they reached."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from histospace_tf.scores import intervals
from histospace_tf.slide_prediction import interval_layers
from histospace_tf.vocabulary import InputError


def held_out(groups: int, spots: int, *, level: float = 0.0) -> anndata.AnnData:
    """Errors of deviation 1 and, between patients, of deviation `level`; gene "b" is twice that."""
    rng = np.random.default_rng(0)
    patient = np.repeat([f"P{number}" for number in range(groups)], spots)
    error = rng.normal(size=(len(patient), 2)) + level * rng.normal(size=(groups, 2)).repeat(
        spots, axis=0
    )
    error[:, 1] *= 2
    predicted = rng.uniform(3, 5, error.shape)
    obs = pd.DataFrame({"section": np.char.add(patient, "1"), "patient": patient})
    obs.index = obs.index.astype(str)
    table = anndata.AnnData(predicted, obs=obs, var=pd.DataFrame(index=["a", "b"]))
    table.layers["measured"] = predicted + error
    return table


def test_widths_are_quantiles_of_errors_and_reach_what_they_state() -> None:
    found = intervals.of_held_out(held_out(8, 500), "patient").set_index("gene")
    assert list(found["left_out"]) == ["patient", "patient"]
    assert list(found["groups"]) == [8, 8]
    # Of a normal distribution: half of it lies within 0.674 deviations, 80 % within 1.282.
    wanted = np.array([0.674, 1.282, 1.645, 1.960])
    columns = ["width_50", "width_80", "width_90", "width_95"]
    np.testing.assert_allclose(found.loc["a", columns].to_numpy(float), wanted, rtol=0.06)
    np.testing.assert_allclose(found.loc["b", columns].to_numpy(float), 2 * wanted, rtol=0.06)
    reached = found[[name.replace("width", "reached") for name in columns]].to_numpy(float)
    np.testing.assert_allclose(reached, np.tile(intervals.LEVELS, (2, 1)), atol=0.02)


def test_groups_weigh_alike_however_many_spots_they_have() -> None:
    table = held_out(2, 400)
    few = table[: 400 + 4].copy()  # four spots of the second patient, far off
    few.layers["measured"][400:] = few.X[400:] + 9
    found = intervals.of_held_out(few, "patient")
    assert (found["width_80"] > 8.9).all()
    assert (found["width_50"] < 8.9).all()


def test_errors_of_levels_between_patients_are_reached_less() -> None:
    spread = intervals.of_held_out(held_out(3, 300, level=4.0), "patient")
    assert (spread["reached_80"] < 0.75).all()
    by_section = intervals.of_held_out(held_out(3, 300), "section")
    assert set(by_section["left_out"]) == {"section"}


def test_a_gene_that_a_group_lacks_and_one_group_alone() -> None:
    table = held_out(2, 50)
    table.layers["measured"][:50, 1] = np.nan
    found = intervals.of_held_out(table, "patient").set_index("gene")
    assert list(found["groups"]) == [2, 1]
    assert np.isfinite(found.loc["b", "width_80"])
    assert np.isnan(found.loc["b", "reached_80"])
    table.layers["measured"][:, 1] = np.nan
    assert np.isnan(intervals.of_held_out(table, "patient")["width_80"][1])


def test_layers_are_the_prediction_less_and_plus_the_width(tmp_path: Path) -> None:
    table = held_out(2, 50)
    intervals.of_held_out(table, "patient").to_csv(tmp_path / intervals.FILE, index=False)
    table.uns["histospace_tf"] = {}
    interval_layers.refuse(0.8, tmp_path)
    interval_layers.add(table, tmp_path, 0.8)
    half = intervals.widths(intervals.read(tmp_path / intervals.FILE), ["a", "b"], 0.8).to_numpy()
    np.testing.assert_allclose(table.layers["upper"], table.X + half, rtol=1e-5)
    np.testing.assert_allclose(table.layers["lower"], np.maximum(table.X - half, 0), rtol=1e-5)
    said = table.uns["histospace_tf"]["intervals"]
    assert said.startswith("80% intervals from 2 held-out patients; on one that was left out")
    assert said.endswith("4 patients would be needed to promise 80%")


def test_mistakes_are_named(tmp_path: Path) -> None:
    interval_layers.refuse(None, tmp_path)
    with pytest.raises(InputError, match=r"`intervals` 0\.7: .*0\.5, 0\.8, 0\.9, 0\.95"):
        interval_layers.refuse(0.7, tmp_path)
    with pytest.raises(InputError, match=r"has no intervals\.csv"):
        interval_layers.refuse(0.8, tmp_path)
    path = tmp_path / intervals.FILE
    path.write_text("gene,width_50\na,1\n")
    with pytest.raises(InputError, match=r"intervals\.csv cannot be read"):
        intervals.read(path)
    of_genes = intervals.of_held_out(held_out(2, 5), "patient")
    with pytest.raises(InputError, match="none of 'z' has an interval"):
        intervals.widths(of_genes, ["z"], 0.5)
