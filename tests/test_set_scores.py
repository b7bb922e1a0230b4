"""Gene sets in predictions: scores of places, what is written of them, means of slides."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from histospace_tf import outputs
from histospace_tf.data_pipelines.genes import gene_sets
from histospace_tf.slide_prediction import OutputFiles, cohort_table, set_scores, written_files
from histospace_tf.slide_prediction.cohort_table import Predicted
from histospace_tf.vocabulary import InputError
from made.predictions import prediction

GENES = ("ERBB2", "GNAS", "HLA-B", "KRT8", "KRT18", "KRT19", "ACTB")
GMT = "KERATINS/1\tna\tKRT8\tKRT18\tKRT19\tERBB2\tGNAS\tESR1\nALL\tna\t{}\nFEW\tna\tACTB\n"
NAMES = ["KERATINS_1", "ALL"]


def slide(*, shift: float = 0.0) -> anndata.AnnData:
    """A prediction of seven genes on six places."""
    small = prediction()
    random = np.random.default_rng(1)
    uns = {**small.uns, "histospace_tf": {"unit": "some unit", "model": "made"}}
    centre, scale = (random.uniform(1, 2, len(GENES)).astype(np.float32) for _ in range(2))
    return anndata.AnnData(
        X=random.uniform(0, 3, (small.n_obs, len(GENES))).astype(np.float32) + np.float32(shift),
        obs=small.obs,
        var=pd.DataFrame(
            {
                "unit": "some unit",
                "centre": centre,
                "scale": scale,
                "symbol": list(GENES),
                "trust": ["yes", "no", "no", "no", "no", "no", "yes"],
                "gene_r": 0.1,
            },
            index=list(GENES),
        ),
        obsm=dict(small.obsm),
        uns=uns,
    )


@pytest.fixture
def sets(tmp_path: Path) -> gene_sets.MatchedSets:
    path = tmp_path / "sets.gmt"
    path.write_text(GMT.format("\t".join(GENES)))
    return gene_sets.on_panel(gene_sets.read([path]), GENES)


@pytest.fixture
def run(tmp_path: Path, sets: gene_sets.MatchedSets) -> Path:
    """A run that has scored the first of the sets."""
    folder = tmp_path / "run"
    folder.mkdir()
    known = {"set": ["KERATINS_1"], "used": [" ".join(sets.sets[0].genes)]}
    pd.DataFrame({**known, "trust": "yes", "set_r": 0.4}).to_csv(
        folder / "gene_sets.csv", index=False
    )
    return folder


def test_scores_stand_in_obsm_and_trust_beside_them(
    sets: gene_sets.MatchedSets, run: Path, tmp_path: Path
) -> None:
    table = slide()
    set_scores.add(table, sets, run=run)
    outputs.write_h5ad(table, tmp_path / "slide.h5ad")
    read = anndata.read_h5ad(tmp_path / "slide.h5ad")
    assert list(read.obsm["gene_sets"].columns) == NAMES
    standard = (read.to_df() - read.var["centre"]) / read.var["scale"]
    np.testing.assert_allclose(
        read.obsm["gene_sets"]["KERATINS_1"],
        standard[list(GENES[:2]) + list(GENES[3:6])].mean(axis=1),
        atol=1e-5,
    )
    np.testing.assert_allclose(read.obsm["gene_sets"]["ALL"], standard.mean(axis=1), atol=1e-5)
    about = read.uns["gene_sets"]
    assert about["trust"].to_dict() == {"KERATINS_1": "yes", "ALL": "unknown"}
    assert about["genes"].to_dict() == {"KERATINS_1": 6, "ALL": 7}
    assert about["in_panel"].to_dict() == {"KERATINS_1": 5, "ALL": 7}
    assert about["set_r"]["KERATINS_1"] == 0.4
    assert np.isnan(about["set_r"]["ALL"])


def test_sets_are_drawn_where_they_are_named_and_tables_have_all(
    sets: gene_sets.MatchedSets, run: Path, tmp_path: Path
) -> None:
    table = slide()
    set_scores.add(table, sets, run=run)
    before = table.copy()
    out = tmp_path / "out"
    files = OutputFiles(
        show=("KERATINS_1", "GNAS"),
        maps=out / "maps",
        page=out / "a.html",
        heatmaps=out / "heat",
        geojson=out / "a.geojson",
        table=out / "a.csv",
    )
    written = {path.name for path in written_files.write_all(table, files)}
    assert {"KERATINS_1.png", "GNAS.png", "KERATINS_1.ome.tif", "GNAS.ome.tif"} <= written
    whole = pd.read_csv(out / "a.csv")
    assert list(whole)[-9:] == [*GENES, *NAMES]
    np.testing.assert_allclose(whole["ALL"], table.obsm["gene_sets"]["ALL"], rtol=1e-5)
    genes = pd.read_csv(out / "a.genes.csv", index_col="gene")
    assert genes["unit"][["GNAS", "ALL"]].tolist() == ["some unit", "mean of standardised genes"]
    assert genes["trust"]["KERATINS_1"] == "yes"
    drawn = json.loads((out / "a.geojson").read_text())
    assert list(drawn["features"][0]["properties"]["measurements"]) == ["KERATINS_1", "GNAS"]
    assert drawn["histospace_tf"]["trust"]["KERATINS_1"] == "yes"
    assert "KERATINS_1" in (out / "a.html").read_text(encoding="utf-8")
    # Nothing of it is left in the prediction, and without `show` genes alone are drawn.
    assert list(table.var_names) == list(before.var_names)
    alone = OutputFiles(maps=tmp_path / "alone", geojson=tmp_path / "alone.geojson")
    assert {path.stem for path in written_files.write_all(table, alone)} <= {*GENES, "alone"}
    outputs.write_h5ad(table, tmp_path / "slide.h5ad")
    again = OutputFiles(show=("ALL",), maps=tmp_path / "again")
    (path,) = written_files.convert(tmp_path / "slide.h5ad", again)
    assert path.name == "ALL.png"
    with pytest.raises(InputError, match="does not predict 'NOSET'"):
        written_files.convert(tmp_path / "slide.h5ad", OutputFiles(show=("NOSET",), maps=out / "m"))


def test_a_finished_prediction_is_scored_on_other_sets(tmp_path: Path) -> None:
    table = slide()
    table.var["gene_ids"] = [f"ENSG{i:011d}" for i in range(len(GENES))]
    outputs.write_h5ad(table, tmp_path / "slide.h5ad")
    sets = tmp_path / "sets.gmt"
    sets.write_text("\t".join(["BY_ID", "na", *table.var["gene_ids"][1:7]]))
    files = OutputFiles(show=("BY_ID",), maps=tmp_path / "maps", table=tmp_path / "a.csv")
    written_files.convert(tmp_path / "slide.h5ad", files, gene_sets=[sets])
    standard = (table.to_df() - table.var["centre"]) / table.var["scale"]
    np.testing.assert_allclose(
        pd.read_csv(tmp_path / "a.csv")["BY_ID"], standard[list(GENES[1:7])].mean(axis=1), atol=1e-5
    )
    assert (tmp_path / "maps" / "BY_ID.png").is_file()
    assert "gene_sets" not in anndata.read_h5ad(tmp_path / "slide.h5ad").obsm
    del table.var["scale"]
    outputs.write_h5ad(table, tmp_path / "old.h5ad")
    with pytest.raises(InputError, match="predict again"):
        written_files.convert(tmp_path / "old.h5ad", files, gene_sets=[sets], force=True)


def test_a_set_may_not_have_the_name_of_a_gene(tmp_path: Path) -> None:
    path = tmp_path / "sets.gmt"
    path.write_text("\t".join(["GNAS", "na", *GENES]))
    with pytest.raises(InputError, match="gene set 'GNAS' has the name of a gene"):
        set_scores.on_panel([path], GENES, ids={})
    path.write_text("\t".join(["MINE", "na", *GENES]))
    matched = set_scores.on_panel([path], GENES, ids={})
    assert matched is not None
    assert matched.scored[0].genes == GENES
    assert set_scores.on_panel([], GENES, ids={}) is None


def test_a_cohort_has_the_mean_of_each_slide(
    sets: gene_sets.MatchedSets, run: Path, tmp_path: Path
) -> None:
    predicted = []
    for at in range(2):
        table = slide(shift=at)
        set_scores.add(table, sets, run=run)
        table.obs["region"] = "tumour"
        table.uns["regions"] = pd.DataFrame(
            {"class": ["Tumor"], "mm2": [0.1]}, index=pd.Index(["tumour"], name="region")
        )
        file = tmp_path / f"s{at}.h5ad"
        outputs.write_h5ad(table, file)
        predicted.append(Predicted(f"s{at}", file, f"s{at}.svs", "P"))
    cohort = cohort_table.of_predictions(predicted)
    outputs.write_h5ad(cohort, tmp_path / "cohort.h5ad")
    means = anndata.read_h5ad(tmp_path / "cohort.h5ad").obsm["gene_sets"]
    assert list(means.index) == ["s0", "s1"]
    apart = (1 / slide().var["scale"]).mean()  # of two slides that differ by 1 in every gene
    assert means["ALL"]["s1"] - means["ALL"]["s0"] == pytest.approx(apart, abs=1e-4)
    assert cohort.uns["gene_sets"]["trust"]["KERATINS_1"] == "yes"
    regions = cohort_table.of_regions(predicted)
    assert regions is not None
    np.testing.assert_allclose(regions["ALL"], means["ALL"], rtol=1e-5)
    assert list(set_scores.with_sets(cohort).to_df()) == [*GENES, *NAMES]
