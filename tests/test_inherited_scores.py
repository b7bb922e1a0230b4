"""Scores that a model trained on everything takes over from evaluations, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from histospace_tf import bundle_file, inherited_scores
from histospace_tf.config import Config, changed
from histospace_tf.data_pipelines.genes.gene_sets import MatchedSet
from histospace_tf.scores import gene_sets, gene_table
from histospace_tf.vocabulary import InputError

CHECKSUMS = {name: {"image": f"i{name}", "spots_and_counts": f"c{name}"} for name in ("A1", "B1")}


@pytest.fixture
def folder(tmp_path: Path, small_config: Config) -> Path:
    return evaluation(tmp_path / "by_patient", small_config, split="patient")


def evaluation(folder: Path, config: Config, *, split: str, images: str = "5 images of he") -> Path:
    """The files of an evaluation that are read."""
    folder.mkdir()
    scores: dict[str, Any] = {"split": {"outer": split}, "sections": {"A1": {}, "B1": {}}}
    fold = {"trained_on": {"autoencoder": {"images": images}}}
    files = {
        "scores.json": scores,
        "manifest.json": {"data": {"checksums": CHECKSUMS}, "folds": {"A": fold, "B": fold}},
        "config.json": config.to_json(),
    }
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values))
    # "NA" is a gene here.
    table = {"gene": ["NA", "ERBB2"], "gene_r": [0.1, 0.4], "p": [0.2, 0.01]}
    pd.DataFrame(table | {"trust": ["no", "yes"]}).to_csv(folder / "genes.csv", index=False)
    return folder


def test_genes_of_the_panel_keep_the_first_evaluations_trust(
    folder: Path, tmp_path: Path, small_config: Config
) -> None:
    other = evaluation(tmp_path / "by_section", small_config, split="section")
    text = (other / "genes.csv").read_text().replace("0.4,", "0.6,").replace("yes", "weak")
    (other / "genes.csv").write_text(text)
    (folder / gene_sets.FILE).write_text("set,used,set_r,trust\nA,ERBB2 NEW,0.3,yes\n")
    out = tmp_path / "run"
    out.mkdir()
    found = inherited_scores.read([folder, other])
    inherited_scores.write(found, ["ERBB2", "NEW", "NA"], out)
    assert list(json.loads((out / inherited_scores.FILE).read_text())) == ["patient", "section"]
    table = pd.read_csv(out / "genes.csv", keep_default_na=False, na_values={"gene_r": [""]})
    assert list(table["gene"]) == ["ERBB2", "NEW", "NA"]
    assert list(table["trust"]) == ["yes", gene_table.UNKNOWN, "no"]
    assert list(table["gene_r_section_split"]) == ["0.6", "", "0.1"]
    known = gene_table.trust_of(["NA", "NEW"], out / "genes.csv")
    assert known.loc["NA", "gene_r"] == 0.1
    assert known.loc["NEW", "trust"] == gene_table.UNKNOWN
    sets = [MatchedSet("A", 2, ("ERBB2", *more), ()) for more in (("NEW",), ("NA",))]
    for one, trust in zip(sets, ("yes", gene_table.UNKNOWN), strict=True):
        assert gene_sets.trust_of([one], out / gene_sets.FILE)["trust"]["A"] == trust


@pytest.mark.parametrize(
    ("shared", "words"),
    [
        ([], "1,005 held-out spots of 2 sections of 2 patients who were not trained on"),
        (["B"], "1,005 held-out spots of 2 sections; other sections of patient B were trained on"),
        (None, "1,005 held-out spots of 2 sections of 2 patients"),
    ],
)
def test_what_trust_is_from_is_told(tmp_path: Path, shared: list[str] | None, words: str) -> None:
    assert inherited_scores.evidence(tmp_path) == inherited_scores.Evidence("", True)
    rows = {"A1": {"spots": 5, "patient": "A"}, "B1": {"spots": 1000, "patient": "B"}}
    split = {} if shared is None else {"patient_on_both_sides": shared}
    scores = {"sections": rows, "split": split}
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    found = inherited_scores.evidence(tmp_path)
    assert (found.words, found.new_patients) == (words, not shared)
    given = pd.Series(["yes", "weak", "no", gene_table.UNKNOWN])
    on_new = ["weak" if shared else "yes", *given[1:]]
    assert list(found.of_a_new_slide(given)) == on_new
    of_none = {"patient": scores, "section": {"sections": {}, "split": {}}}
    (tmp_path / inherited_scores.FILE).write_text(json.dumps(of_none))
    assert inherited_scores.evidence(tmp_path) == found  # the first, of which genes.csv is
    (tmp_path / inherited_scores.FILE).write_text("{")
    with pytest.raises(InputError, match=r"evaluations\.json"):
        inherited_scores.evidence(tmp_path)


def test_another_seed_and_strategy_carry_over(folder: Path, small_config: Config) -> None:
    config = dataclasses.replace(small_config, seed=5, strategy="single")
    found = inherited_scores.read([folder])
    inherited_scores.refuse_other_settings(found, config)
    assert [one.split for one in found] == ["patient"]


def test_other_settings_are_refused_by_name(folder: Path, small_config: Config) -> None:
    config = changed(small_config, context__neighbour_um=123.0)
    with pytest.raises(InputError, match=r"context\.neighbour_um"):
        inherited_scores.refuse_other_settings(inherited_scores.read([folder]), config)


@pytest.mark.parametrize("lacking", ["scores.json", "manifest.json", "config.json", "genes.csv"])
def test_a_folder_that_is_no_evaluation_is_refused(
    folder: Path, small_config: Config, lacking: str
) -> None:
    (folder / lacking).unlink()
    with pytest.raises(InputError, match=folder.name):
        inherited_scores.read([folder])


def test_a_run_of_fit_is_no_evaluation(small_run: Path, small_config: Config) -> None:
    with pytest.raises(InputError, match="evaluate DATA"):
        inherited_scores.read([small_run])


def test_two_evaluations_of_one_split_are_refused(folder: Path, small_config: Config) -> None:
    with pytest.raises(InputError, match="one each"):
        inherited_scores.read([folder, folder])


@pytest.mark.parametrize(
    "checksums",
    [
        {"A1": CHECKSUMS["A1"]},
        {**CHECKSUMS, "C1": CHECKSUMS["A1"]},
        {**CHECKSUMS, "B1": {**CHECKSUMS["B1"], "image": "other"}},
    ],
    ids=["fewer", "more", "changed"],
)
def test_other_data_are_refused(
    folder: Path, small_config: Config, checksums: dict[str, dict[str, str]]
) -> None:
    found = inherited_scores.read([folder])
    inherited_scores.refuse_other_data(found, CHECKSUMS)
    with pytest.raises(InputError, match=r"section .(B1|C1)."):
        inherited_scores.refuse_other_data(found, checksums)


def test_another_encoder_is_refused(folder: Path, small_config: Config) -> None:
    found = inherited_scores.read([folder])
    inherited_scores.refuse_other_encoder(found, "5 images of he")
    with pytest.raises(InputError, match="`pretrain`"):
        inherited_scores.refuse_other_encoder(found, bundle_file.OWN_TILES)
