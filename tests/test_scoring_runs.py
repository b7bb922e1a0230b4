"""A finished run on other data: nothing fitted, nothing that was trained on, everything named."""

from __future__ import annotations

import dataclasses
import gzip
import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from histospace_tf import bundle, scoring
from histospace_tf.cohort import genes as cohort_genes
from histospace_tf.data_pipelines import simulation
from histospace_tf.requests import ScoreRequest
from histospace_tf.vocabulary import Cohort, InputError
from made import tissue as made_tissue


@pytest.fixture(scope="module")
def other_tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tissue of one patient that no run has seen; its name is that of one who was trained on."""
    folder = tmp_path_factory.mktemp("other") / "tissue"
    simulation.simulate(folder, patients=2, spots_xy=(4, 4), seed=11)
    shutil.rmtree(folder / "ST-imgs" / "B")
    for path in [*(folder / "ST-cnts").glob("B*"), *(folder / "ST-spotfiles").glob("B*")]:
        path.unlink()
    return folder


@pytest.fixture(scope="module")
def seen_again(
    small_run: Path, small_tissue: Path, tmp_path_factory: pytest.TempPathFactory
) -> scoring.ScoreResult:
    """The run scored on the data set that it is from."""
    out = tmp_path_factory.mktemp("external") / "out"
    files = {"ours": small_run / "predictions.h5ad"}
    sets = out.parent / "sets.gmt"
    sets.write_text("\t".join(["PANEL", "na", *pd.read_csv(small_run / "genes.csv")["gene"]]))
    return scoring.score(
        ScoreRequest(small_tissue, out, model=small_run, predictions=files, gene_sets=[sets])
    )


def without_genes(source: Path, folder: Path, genes: set[str], *, sections: str = "*") -> Path:
    """A copy of a data set whose sections' tables lack some genes."""
    shutil.copytree(source, folder)
    for path in (folder / "ST-cnts").glob(f"{sections}.tsv.gz"):
        with gzip.open(path, "rt") as lines:
            table = pd.read_csv(lines, sep="\t", index_col=0)
        table = table.drop(columns=[gene for gene in genes if gene in table])
        path.write_bytes(gzip.compress(table.to_csv(sep="\t").encode()))
    return folder


def sections_of(folder: Path) -> list[str]:
    return sorted(path.name.removesuffix(".tsv.gz") for path in (folder / "ST-cnts").iterdir())


def test_scores_of_the_held_out_section_are_those_of_the_run(
    seen_again: scoring.ScoreResult, small_run: Path
) -> None:
    own = json.loads((small_run / "scores.json").read_text())
    assert list(seen_again.scores["sections"]) == list(own["sections"])
    for name, entry in own["sections"].items():
        again = seen_again.scores["sections"][name]
        for row, values in entry["rows"].items():
            # Features are computed again; float32 sums may differ in their last digits.
            found = again["rows"][row]
            assert found == (None if values is None else pytest.approx(values, abs=2e-3)), row
        assert again["rows"]["ours"] == pytest.approx(again["rows"]["model"], abs=2e-3)


def test_sections_that_were_trained_on_are_left_out_by_their_content(
    small_run: Path,
    small_tissue: Path,
    seen_again: scoring.ScoreResult,
    other_tissue: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained = bundle.load(small_run).trained_on["sections"]
    assert seen_again.scores["external"]["left_out"] == trained
    assert f"Left out, for the run was trained on it: '{trained[0]}'" in seen_again.summary()
    # Under another name, in another data set, with its image alone the same.
    mixed = shutil.copytree(other_tissue, tmp_path / "mixed")
    (image,) = (small_tissue / "ST-imgs").glob(f"*/{trained[0]}/*.jpg")
    (old,) = (mixed / "ST-imgs").glob("*/*/*.jpg")
    old.write_bytes(image.read_bytes())
    with pytest.raises(InputError, match=r"trained on every section with an image \('A1'\)"):
        scoring.score(ScoreRequest(mixed, tmp_path / "out", model=small_run))
    assert "section A1: the run was trained on it; left out" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_patient_that_was_trained_on_is_kept_and_named_as_a_leak(
    small_run: Path, other_tissue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = scoring.score(ScoreRequest(other_tissue, tmp_path / "out", model=small_run))
    assert "Warning: the run was trained on patient 'A'" in capsys.readouterr().err
    assert found.scores["split"]["outer"] == "external"
    assert found.scores["split"]["patient_on_both_sides"] == ["A"]
    assert "trained on patient 'A'" in found.summary()
    assert list(found.scores["sections"]) == sections_of(other_tissue)
    # The patient's mean is known, so it stands beside.
    assert found.scores["mean"]["patient_mean"] is not None


def cohort_of(*genes: tuple[str, ...]) -> Cohort:
    """Made sections S0, S1, ..., each with its own names of four genes."""
    sections = [
        dataclasses.replace(one, spots=dataclasses.replace(one.spots, genes=names))
        for number, names in enumerate(genes)
        for one in [made_tissue.section(f"S{number}", "P", seed=number)]
    ]
    return Cohort(Path("made"), "made", tuple(sections))


def test_every_section_may_name_the_genes_of_the_panel_in_its_own_way(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cohort = cohort_of(
        ("ERBB2", "GNAS", "ACTB", "IGKC"),
        ("ENSG00000141736.13", "ENSG00000087460", "OTHER", "IGKC"),
    )
    panel = made_tissue.panel(genes=("GNAS", "ERBB2", "NONE"))
    found, match = cohort_genes.on_panel(cohort, panel)
    assert [s.spots.genes for s in found.sections] == [
        ("ERBB2", "GNAS", "ACTB", "IGKC"),
        ("ERBB2", "GNAS", "OTHER", "IGKC"),
    ]
    assert list(match.matched) == ["GNAS", "ERBB2"]
    assert match.unmatched == ("NONE",)
    for before, after in zip(cohort.sections, found.sections, strict=True):
        assert after.spots.counts is before.spots.counts
    told = capsys.readouterr().err
    assert "2 of 3 genes of the panel are measured" in told
    assert "left out: 'NONE'" in told


def test_ensembl_ids_beside_the_datas_symbols_find_a_panel_of_ids() -> None:
    cohort = cohort_of(("Erbb2", "Gnas", "Actb", "Ighm"))
    (section,) = cohort.sections
    ids = ("ENSMUSG00000062312.5", "ENSMUSG00000027523", "", "")
    spots = dataclasses.replace(section.spots, gene_ids=ids)
    cohort = dataclasses.replace(cohort, sections=(dataclasses.replace(section, spots=spots),))
    panel = made_tissue.panel(genes=("ENSMUSG00000027523", "ENSMUSG00000062312.4", "ACTB"))
    found, match = cohort_genes.on_panel(cohort, panel)
    assert match.matched == {panel.genes[0]: "Gnas", panel.genes[1]: "Erbb2"}
    assert match.unmatched == ("ACTB",)
    assert found.sections[0].spots.genes == (panel.genes[1], panel.genes[0], "Actb", "Ighm")


def test_a_gene_that_is_ambiguous_in_one_section_is_left_out_of_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cohort = cohort_of(
        ("SEPTIN2", "GNAS", "ACTB", "IGKC"), ("SEPT2", "GNAS", "ACTB", "ENSG00000168385")
    )
    _, match = cohort_genes.on_panel(cohort, made_tissue.panel(genes=("SEPTIN2", "GNAS")))
    assert match.matched == {"GNAS": "GNAS"}
    assert match.ambiguous == {"SEPTIN2": ("SEPT2", "ENSG00000168385")}
    assert "1 ambiguous ('SEPTIN2: SEPT2 or ENSG00000168385')" in capsys.readouterr().err


def test_data_without_any_gene_of_the_panel_are_refused() -> None:
    cohort = cohort_of(("Erbb2", "Gnas", "Actb", "Igkc"))
    with pytest.raises(InputError, match=r"human genes .* mouse genes .* `orthologs`"):
        cohort_genes.on_panel(cohort, made_tissue.panel())
    cohort = cohort_of(("OTHER1", "OTHER2", "OTHER3", "OTHER4"))
    with pytest.raises(InputError, match=r"none of the 4 genes .* 'OTHER1', 'OTHER2'"):
        cohort_genes.on_panel(cohort, made_tissue.panel())


def test_everything_is_written_and_the_run_stays_as_it_was(
    seen_again: scoring.ScoreResult,
) -> None:
    names = {path.name for path in seen_again.out.iterdir()}
    assert {
        "scores.json",
        "gene_scores.csv",
        "genes.csv",
        "gene_sets.csv",
        "predictions.h5ad",
        "clusters.json",
        "config.json",
        "manifest.json",
        "overviews",
    } <= names
    assert "work" not in names
    scores = json.loads((seen_again.out / "scores.json").read_text())
    assert scores == seen_again.scores
    table = anndata.read_h5ad(seen_again.out / "predictions.h5ad")
    assert set(table.layers) == {"measured", "model_single_tile", "colour_ridge", "ours"}
    assert {"section", "patient", "spot", "total_counts", "fold"} <= set(table.obs)
    assert {"cluster_predicted", "cluster_measured", "label"} <= set(table.obs)
    assert list(pd.read_csv(seen_again.out / "genes.csv")["gene"]) == list(table.var_names)
    manifest = json.loads((seen_again.out / "manifest.json").read_text())
    assert set(manifest["data"]["checksums"]) == set(scores["sections"])
    assert set(manifest["predictions"]) == {"ours"}


def test_the_summary_names_gnas_and_hla_b_and_both_correlations(
    seen_again: scoring.ScoreResult,
) -> None:
    text = seen_again.summary()
    for gene in scoring.NAMED_GENES:
        assert any(line.strip().startswith(gene) for line in text.splitlines()), gene
    assert "spot_r" in text
    assert "gene mean" in text
    assert "12 of 12 genes of the panel are measured" in text
    assert "1 of 1 gene sets scored" in text


def test_a_gene_that_no_section_holds_is_left_out_and_one_that_some_hold_is_zero(
    small_run: Path, small_tissue: Path, tmp_path: Path
) -> None:
    panel = bundle.load(small_run).panel.genes
    gone, zero = panel[2], panel[5]
    data = without_genes(small_tissue, tmp_path / "no", {gone})
    held = json.loads((small_run / "scores.json").read_text())["split"]["held_out"][0]
    data = without_genes(data, tmp_path / "data", {zero}, sections=f"{held}*")
    found = scoring.score(ScoreRequest(data, tmp_path / "out", model=small_run))
    assert found.scores["external"]["missing_genes"] == [gone]
    assert found.scores["external"]["shared_genes"] == 11
    assert repr(gone) in found.summary()
    table = anndata.read_h5ad(found.out / "predictions.h5ad")
    assert list(table.var_names) == [gene for gene in panel if gene != gone]
    of_held = table[table.obs["section"].astype(str).str.startswith(held)]
    assert (np.asarray(of_held[:, zero].layers["measured"]) == 0).all()


def test_runs_and_data_that_cannot_be_scored_are_refused(
    small_run: Path, small_tissue: Path, other_tissue: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    old = shutil.copytree(small_run, tmp_path / "old")
    (old / "baselines.npz").unlink()
    with pytest.raises(InputError, match=r"baselines\.npz.*fit` again"):
        scoring.score(ScoreRequest(other_tissue, out, model=old))
    with pytest.raises(InputError, match="`clusters` 1"):
        scoring.score(ScoreRequest(other_tissue, out, model=small_run, clusters=1))
    panel = set(bundle.load(small_run).panel.genes)
    foreign = without_genes(other_tissue, tmp_path / "foreign", panel)
    with pytest.raises(InputError, match="none of the 12 genes of the run's panel"):
        scoring.score(ScoreRequest(foreign, out, model=small_run))
    short = anndata.read_h5ad(small_run / "predictions.h5ad")[1:].copy()
    short.write_h5ad(tmp_path / "short.h5ad")
    with pytest.raises(InputError, match="lacks 1 of"):
        scoring.score(
            ScoreRequest(
                small_tissue, out, model=small_run, predictions={"short": tmp_path / "short.h5ad"}
            )
        )
    assert not out.exists()
    out.mkdir()
    (out / "kept.txt").write_text("mine")
    with pytest.raises(InputError, match="`force`"):
        scoring.score(ScoreRequest(other_tissue, out, model=small_run))
