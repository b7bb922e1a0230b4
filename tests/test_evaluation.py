"""Nested evaluation on small simulated tissue: what it keeps apart, writes, resumes and shares."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import anndata
import cv2
import numpy as np
import pandas as pd
import pytest

from histospace_tf import bundle, evaluation, fitting, presets
from histospace_tf import config as configuration
from histospace_tf.cohort import head_inputs, paired, plans, pretraining, reading
from histospace_tf.config import Config, changed
from histospace_tf.data_pipelines import readers, simulation, splits
from histospace_tf.folds import complexities, fold_run
from histospace_tf.predictors import ridge_head, saved_baselines
from histospace_tf.requests import EvaluateRequest, FitRequest
from histospace_tf.scores import gene_table
from histospace_tf.vocabulary import InputError
from made.configs import tiny_config

pytestmark = pytest.mark.slow

SMALLEST_STUDY = complexities.Budget(
    tiles=6, autoencoder_epochs=1, spots=12, head_epochs=1, shown=1
)


@pytest.fixture(scope="module")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Patient A with sections A1 and A2, patient B with B1 alone."""
    folder = tmp_path_factory.mktemp("tissue") / "tissue"
    simulation.simulate(folder, patients=2, sections_per_patient=2, spots_xy=(4, 4), seed=7)
    (folder / "ST-cnts" / "B2.tsv.gz").unlink()
    (folder / "ST-spotfiles" / "B2_selection.tsv").unlink()
    shutil.rmtree(folder / "ST-imgs" / "B" / "B2")
    return folder


@pytest.fixture(scope="module")
def tiny() -> Config:
    return tiny_config(
        tiles__tile_px=32,
        target__genes=6,
        autoencoder__epochs=1,
        autoencoder__tiles=16,
        autoencoder__tile_px=32,
        regressor__architecture="pooled",
        regressor__inner_folds=1,
        regressor__symmetries=1,
        context__slide_tiles=4,
    )


@pytest.fixture(scope="module")
def evaluated(tissue: Path, tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished evaluation by patient, encoders trained fold by fold."""
    out = tmp_path_factory.mktemp("evaluations") / "evaluated"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(complexities.Budget, "of", lambda epochs: SMALLEST_STUDY)
        evaluation.evaluate(EvaluateRequest(tissue, out, config=tiny))
    return out


def read(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def blocks(scores: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of every section, their mean and all spots pooled."""
    return [*(e["rows"] for e in scores["sections"].values()), scores["mean"], scores["pooled"]]


def assert_same_fit(one: Path, other: Path) -> None:
    """Everything fitted is equal, to the bit."""
    first, second = bundle.load(one), bundle.load(other)
    assert first.panel.genes == second.panel.genes
    assert first.panel.to_json() == second.panel.to_json()
    assert first.reference.to_json() == second.reference.to_json()
    assert read(one, "manifest.json")["chosen"] == read(other, "manifest.json")["chosen"]
    for model in ("encoder", "head", "single_tile_head"):
        for a, b in zip(
            getattr(first, model).get_weights(), getattr(second, model).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(a, b, err_msg=model)
    # Equal tiles' colour statistics (OpenCV, float32) were seen to differ by 1e-8 between two runs
    # of one process, on the halved levels; a held-out section would change the first digits.
    for name, values in np.load(one / saved_baselines.FILE).items():
        again = np.load(other / saved_baselines.FILE)[name]
        if values.dtype.kind == "f":
            np.testing.assert_allclose(again, values, rtol=1e-4, atol=1e-4, err_msg=name)
        else:
            np.testing.assert_array_equal(again, values, err_msg=name)


def test_folder_holds_what_the_design_promises(evaluated: Path) -> None:
    assert {path.name for path in evaluated.iterdir()} == {
        "clusters.json",
        "config.json",
        "figures",
        "folds",
        "gene_scores.csv",
        "genes.csv",
        "history.csv",
        "intervals.csv",
        "manifest.json",
        "overviews",
        "predictions.h5ad",
        "reconstructions.npz",
        "report.html",
        "scores.json",
        "stain_panel.png",
    }
    assert not evaluated.with_name("evaluated.partial").exists()
    assert {path.name for path in (evaluated / "folds").iterdir()} == {"A", "B"}
    assert (evaluated / "folds" / "A" / "bundle" / "bundle.json").is_file()


def test_every_section_is_scored_once_by_a_model_that_never_saw_its_patient(
    evaluated: Path,
) -> None:
    scores = read(evaluated, "scores.json")
    assert scores["split"] == {
        "outer": "patient",
        "inner": "block, section",  # of patient B's one section; of patient A's two
        "held_out": [["A"], ["B"]],
        "patient_on_both_sides": [],
    }
    folds = {name: entry["fold"] for name, entry in scores["sections"].items()}
    assert folds == {"A1": "A", "A2": "A", "B1": "B"}
    for name in ("A", "B"):
        assert (
            name not in read(evaluated / "folds" / name, "manifest.json")["trained_on"]["patients"]
        )
    for block in [*(e["rows"] for e in scores["sections"].values()), scores["pooled"]]:
        assert {"model", "gene_mean", "colour_ridge", "neighbour_oracle"} <= set(block)
    mean = np.mean([e["rows"]["model"]["mse"] for e in scores["sections"].values()])
    assert scores["mean"]["model"]["mse"] == pytest.approx(mean)


def test_tables_join_all_folds(evaluated: Path) -> None:
    table = anndata.read_h5ad(evaluated / "predictions.h5ad")
    parts = [anndata.read_h5ad(evaluated / "folds" / f / "predictions.h5ad") for f in ("A", "B")]
    assert list(table.obs_names) == [name for part in parts for name in part.obs_names]
    for part in parts:
        mine = table[part.obs_names, part.var_names]
        np.testing.assert_array_equal(np.asarray(mine.X), np.asarray(part.X))
    # Folds choose their own panels: a gene that one of them left out is NaN there.
    lacking = [gene for gene in table.var_names if gene not in parts[0].var_names]
    assert lacking
    assert np.isnan(np.asarray(table[parts[0].obs_names, lacking].X)).all()
    assert {"cluster_predicted", "cluster_measured", "label", "fold"} <= set(table.obs)
    genes = pd.read_csv(evaluated / "genes.csv")
    assert list(genes["gene"]) == list(table.var_names)
    assert set(genes["trust"]) <= {"yes", "weak", "no", "unknown"}
    history = pd.read_csv(evaluated / "history.csv")
    assert set(history.loc[history["stage"] == "pooled", "fold"]) == {"A", "B"}
    assert {"autoencoder", "pooled_inner1", "autoencoder_3", "head_1"} <= set(history["stage"])


def test_manifest_has_the_folds(evaluated: Path) -> None:
    manifest = read(evaluated, "manifest.json")
    for name, fold in manifest["folds"].items():
        assert fold["split"]["held_out"] == [name]
        assert {"chosen", "panel", "inner_folds", "seconds", "seed"} <= set(fold)
        strength = fold["chosen"]["head"]["strength"]
        assert strength in ridge_head.STRENGTHS
        history = pd.read_csv(evaluated / "folds" / name / "history.csv")
        (last,) = set(history.loc[history["stage"] == "pooled", "strength"])
        assert last == pytest.approx(strength)
    assert set(manifest["data"]["checksums"]) == {"A1", "A2", "B1"}
    assert manifest["complexities"]["fold"] == "B"  # the larger training side
    assert manifest["request"]["with_complexities"] is True


@pytest.mark.usefixtures("unpublished")
def test_a_changed_held_out_patient_leaves_everything_fitted_unchanged(
    tissue: Path,
    tiny: Config,
    evaluated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = tmp_path / "data"
    shutil.copytree(tissue, data)
    rng = np.random.default_rng(1)
    for name in ("A1", "A2"):
        counts = data / "ST-cnts" / f"{name}.tsv.gz"
        table = pd.read_csv(counts, sep="\t", index_col=0)
        table.iloc[:, :] = rng.integers(0, 99, table.shape)
        with gzip.open(counts, "wt") as file:
            table.to_csv(file, sep="\t")
        (image,) = (data / "ST-imgs" / "A" / name).glob("*.jpg")
        picture = cv2.imread(str(image))
        assert picture is not None
        changed_picture = picture[::-1].astype(np.uint8)
        changed_picture[..., 0] //= 2
        cv2.imwrite(str(image), changed_picture)
    real = evaluation._run
    folds: list[str] = []

    def first_fold_alone(plan: Any, outer: Any, *arguments: Any, **options: Any) -> None:
        if folds:
            raise KeyboardInterrupt
        folds.append(outer.name)
        real(plan, outer, *arguments, **options)

    monkeypatch.setattr(evaluation, "_run", first_fold_alone)
    with pytest.raises(KeyboardInterrupt):
        evaluation.evaluate(EvaluateRequest(data, tmp_path / "out", config=tiny))
    changed_fold = tmp_path / "out.partial" / "folds" / "A"
    assert_same_fit(evaluated / "folds" / "A", changed_fold)
    before, after = (
        anndata.read_h5ad(fold / "predictions.h5ad")
        for fold in (evaluated / "folds" / "A", changed_fold)
    )
    assert not np.array_equal(np.asarray(before.X), np.asarray(after.X))  # other pictures


@pytest.mark.usefixtures("unpublished")
def test_interrupted_evaluation_goes_on_and_equals_an_undisturbed_one(
    tissue: Path,
    tiny: Config,
    evaluated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, real = tmp_path / "out", ridge_head.ridges
    heads: list[Any] = []

    def interrupted(*arguments: Any) -> Any:
        if len(heads) == 3:  # in the second fold: the autoencoder and an inner head are done
            raise KeyboardInterrupt
        heads.append(arguments)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ridge_head, "ridges", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluation.evaluate(EvaluateRequest(tissue, out, config=tiny, with_complexities=False))
    assert not out.exists()
    with pytest.raises(InputError, match="had another split"):
        evaluation.evaluate(EvaluateRequest(tissue, out, config=tiny, split="section", resume=True))
    capsys.readouterr()
    result = evaluation.evaluate(
        EvaluateRequest(tissue, out, config=tiny, with_complexities=False, resume=True)
    )
    said = capsys.readouterr().err
    assert "Fold 1 of 2: held out A: finished before." in said
    assert "Fold 2 of 2: held out B, " in said
    for name in ("A", "B"):
        assert_same_fit(evaluated / "folds" / name, out / "folds" / name)
    pairs = zip(blocks(result.scores), blocks(read(evaluated, "scores.json")), strict=True)
    for again, before in pairs:
        # The ridge reads OpenCV's colour statistics: see `assert_same_fit`.
        ridge, known = again.pop("colour_ridge"), before.pop("colour_ridge")
        assert ridge == pytest.approx(known, rel=1e-3, abs=1e-3)
        assert again == before
    assert not (out / "held_out").exists()
    assert "Trusted genes: " in result.summary()


@pytest.mark.usefixtures("unpublished")
def test_a_model_of_everything_carries_the_scores_of_an_evaluation(
    tissue: Path, tiny: Config, evaluated: Path, tmp_path: Path
) -> None:
    out = tmp_path / "all"
    with pytest.raises(InputError, match="`no_hold_out`"):
        fitting.fit(FitRequest(tissue, out, config=tiny, hold_out=["B"], evaluations=[evaluated]))
    fitting.fit(FitRequest(tissue, out, config=tiny, no_hold_out=True, evaluations=[evaluated]))
    scores = read(evaluated, "scores.json")
    assert read(out, "evaluations.json") == {"patient": scores}
    trained = bundle.load(out)
    assert trained.trained_on["patients"] == ["A", "B"]
    known = gene_table.trust_of(trained.panel.genes, out / "genes.csv")
    own = gene_table.trust_of(trained.panel.genes, evaluated / "genes.csv")
    pd.testing.assert_frame_equal(known, own)
    card = (out / "MODEL_CARD.md").read_text()
    assert "every patient held out in turn" in card
    assert f"{scores['mean']['model']['gene_r']:.3f}" in card


@pytest.mark.usefixtures("unpublished")
def test_encoder_from_outside_is_trained_once_and_gives_what_a_fit_with_it_gives(
    tissue: Path,
    tiny: Config,
    evaluated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls: dict[str, int] = {}

    def counted(module: Any, name: str) -> None:
        real = getattr(module, name)

        def call(*arguments: Any, **options: Any) -> Any:
            calls[name] = calls.get(name, 0) + 1
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, call)

    counted(pretraining, "train_encoder")
    counted(head_inputs, "of_spots")
    counted(paired, "cut_tiles")
    out = tmp_path / "out"
    evaluation.evaluate(
        EvaluateRequest(
            tissue,
            out,
            config=tiny,
            split="section",
            pretrain=tissue / "ST-imgs" / "B",
            predictions={"theirs": evaluated / "predictions.h5ad"},
            with_complexities=False,
        )
    )
    assert calls == {"train_encoder": 1, "of_spots": 1, "cut_tiles": 1}
    said = capsys.readouterr().err
    assert "3 folds by section." in said
    assert "patient A leaks" in said  # and not B, all of whose sections B1 is
    scores = read(out, "scores.json")
    assert scores["split"]["patient_on_both_sides"] == ["A"]
    assert "theirs" in scores["mean"] or "theirs" in scores["shared_genes"]
    history = pd.read_csv(out / "history.csv", keep_default_na=False)
    assert list(history.loc[history["stage"] == "autoencoder", "fold"]) == [""]

    fold = out / "folds" / "A2"
    fitting.fit(FitRequest(tissue, tmp_path / "run", config=tiny, hold_out=["A2"], encoder=fold))
    assert_same_fit(fold, tmp_path / "run")
    alone, among = (
        anndata.read_h5ad(folder / "predictions.h5ad") for folder in (tmp_path / "run", fold)
    )
    np.testing.assert_array_equal(np.asarray(alone.X), np.asarray(among.X))


@pytest.mark.usefixtures("unpublished")
def test_another_head_on_the_same_folds_is_a_row_of_its_own(
    tissue: Path, tiny: Config, evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper = presets.preset("paper")
    quick = configuration.changed(paper, regressor__epochs=2)
    monkeypatch.setitem(presets.PRESETS, "paper", quick)
    donor = evaluated / "folds" / "A"
    with gzip.open(tissue / "ST-cnts" / "A1.tsv.gz", "rt") as file:
        every = file.readline().split()
    (tmp_path / "sets.gmt").write_text("\t".join(["ALL", "na", *every]) + "\nFEW\tna\tX1\n")
    result = evaluation.evaluate(
        EvaluateRequest(
            tissue,
            tmp_path / "out",
            config=changed(tiny, target__genes=10),
            encoder=donor,
            compare=["context", "paper"],
            gene_sets=tmp_path / "sets.gmt",
            with_complexities=False,
        )
    )
    for entry in result.scores["sections"].values():
        assert entry["rows"]["context"]["mse"] > 0
        assert entry["rows"]["paper"]["mse"] > 0
    history = pd.read_csv(tmp_path / "out" / "history.csv")
    assert {"context", "context_inner1"} <= set(history["stage"])
    # The paper's head: its own number of epochs, none chosen, and its own rate; the run has others.
    own = history[history["stage"] == "paper"]
    assert own.groupby("fold")["epoch"].agg(list).to_dict() == {"A": [1, 2], "B": [1, 2]}
    assert set(own["learning_rate"]) == {np.float32(1e-4)}
    assert "paper_inner1" not in set(history["stage"])
    for fold in read(tmp_path / "out", "manifest.json")["folds"].values():
        assert fold["chosen"]["paper"] == {"epochs": 2, "most": 2, "by": "fixed"}
    chosen = [one for one in result.scores["chosen"] if one["predictor"] == "paper"]
    assert [(one["held_out"], one["epochs"]) for one in chosen] == [(["A"], 2), (["B"], 2)]
    text = " ".join(result.summary().split())
    assert "paper's head: the paper's training and tiles" in text
    sets = pd.read_csv(tmp_path / "out" / "gene_sets.csv").set_index("set")
    panels = [bundle.load(tmp_path / "out" / "folds" / name).panel.genes for name in "AB"]
    shared = [gene for gene in panels[0] if gene in panels[1]]
    assert sets["used"]["ALL"].split() == shared
    assert sets["in_panel"].to_dict() == {"ALL": len(shared), "FEW": 0}
    assert sets["sections"]["ALL"] == 3
    numbers = sets.loc["ALL", ["set_r", "low", "p_spatial", "colour_ridge_r", "depth"]]
    assert np.isfinite(numbers.astype(float)).all()
    assert sets["trust"]["FEW"] == "unknown"
    assert "1 of 2 gene sets scored" in text
    assert set(read(tmp_path / "out", "manifest.json")["gene_sets"]) == {str(tmp_path / "sets.gmt")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "spot"}, "one of patient, section"),
        ({"clusters": 1}, "at least 2"),
        ({"compare": ["pooled"]}, "in any case"),
        ({"compare": ["global"], "predictions": {"global": Path("x")}}, "both name"),
        ({"predictions": {"theirs": Path("nowhere.h5ad")}}, "nowhere.h5ad"),
        ({"predictions": {"model": Path("x.h5ad")}}, "name is taken"),
        ({"gene_sets": Path("no.gmt")}, "gene sets 'no.gmt' does not exist"),
        ({"predictions": {"probe:x": Path("x.h5ad")}}, "begin with 'probe:'"),
        ({"predictions": {"head:x": Path("x.h5ad")}}, "begin with 'head:'"),
        ({"pretrain": Path("x"), "encoder": Path("y")}, "pass one of them"),
    ],
)
def test_mistakes_end_with_a_clear_line_and_leave_nothing(
    tissue: Path, tiny: Config, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        evaluation.evaluate(EvaluateRequest(tissue, tmp_path / "out", config=tiny, **options))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("unit", r"is in 'counts'; 'ln\("),
        ("hole", "is not a finite number"),
        ("spot", "lacks 1 of"),
    ],
)
@pytest.mark.parametrize("border", ["reflect", "drop"])
def test_predictions_that_do_not_fit_are_refused_before_any_training(
    tissue: Path,
    tiny: Config,
    evaluated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    message: str,
    border: str,
) -> None:
    table = anndata.read_h5ad(evaluated / "predictions.h5ad")
    if change == "unit":
        table.var["unit"] = "counts"
    elif change == "hole":
        table.X[0, 0] = np.nan
    else:
        table = table[1:].copy()
    file = tmp_path / "theirs.h5ad"
    table.write_h5ad(file)
    monkeypatch.setattr(
        fold_run.encoders, "pretraining_sections", lambda *_: pytest.fail("trained")
    )
    if border == "reflect":  # "drop" leaves spots out, which shows when tiles are cut
        monkeypatch.setattr(paired, "cut_tiles", lambda *_, **__: pytest.fail("cut tiles"))
    config = changed(tiny, tiles__border=border)
    with pytest.raises(InputError, match=message):
        evaluation.evaluate(
            EvaluateRequest(tissue, tmp_path / "out", config=config, predictions={"theirs": file})
        )
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("options", "settings", "message"),
    [
        ({"clusters": 99}, {}, "no more clusters than"),
        ({"split": "section"}, {"target__panel": "genes.txt"}, "NOSUCHGENE"),
        ({}, {}, "labels"),
    ],
)
def test_mistakes_in_the_data_are_reported_before_an_image_is_opened(
    tissue: Path,
    tiny: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    settings: dict[str, Any],
    message: str,
) -> None:
    data = shutil.copytree(tissue, tmp_path / "data")
    (tmp_path / "genes.txt").write_text("ERBB2\nNOSUCHGENE\n")
    if message == "labels":
        (data / "ST-pat" / "lbl" / "A1_labeled_coordinates.tsv").write_text("no\tlabels\n1\t2\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paired, "cut_tiles", lambda *_, **__: pytest.fail("cut tiles"))
    with pytest.raises(InputError, match=message):
        evaluation.evaluate(
            EvaluateRequest(data, Path("out"), config=changed(tiny, **settings), **options)
        )
    assert {path.name for path in tmp_path.iterdir()} == {"data", "genes.txt"}


def test_spots_with_few_counts_are_left_out_with_a_warning(
    tissue: Path, tiny: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = readers.read_cohort(tissue)
    totals = cohort.sections[0].spots.total_counts
    least = int(np.median(totals)) + 1
    kept = reading.usable_sections(cohort, changed(tiny, target__min_counts=least))[0]
    assert len(kept.spots) == (totals >= least).sum()
    told = capsys.readouterr().err
    assert f"{(totals < least).sum()} of {len(totals)} spots have fewer than {least}" in told
    with pytest.raises(InputError, match=f"of {len(totals)} spots has 999999 counts"):
        reading.usable_sections(cohort, changed(tiny, target__min_counts=999_999))


def test_guard_stands_before_every_fold(
    tissue: Path, tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaking = lambda index, _: [splits.outer_fold(index, ["A1"])]  # noqa: E731
    monkeypatch.setattr(plans, "outer_folds", leaking)
    monkeypatch.setattr(
        fold_run.encoders, "pretraining_sections", lambda *_: pytest.fail("trained")
    )
    with pytest.raises(InputError, match="patient 'A' would be on both sides"):
        evaluation.evaluate(EvaluateRequest(tissue, tmp_path / "out", config=tiny, split="patient"))


def index_of(*pairs: tuple[str, str]) -> splits.SpotIndex:
    """Two spots a (section, patient) pair."""
    n = 2 * len(pairs)
    return splits.SpotIndex(
        section=np.repeat([section for section, _ in pairs], 2),
        patient=np.repeat([patient for _, patient in pairs], 2),
        centres_px=np.arange(2.0 * n).reshape(n, 2),
        gap_px=np.ones(n),
    )


def test_patient_folds_take_all_sections_and_share_no_patient() -> None:
    # Patient "P2" is called like a section of patient P1.
    index = index_of(("a", "P1"), ("P2", "P1"), ("c", "P2"), ("d", "P3"))
    folds = plans.outer_folds(index, "patient")
    assert [fold.held_out for fold in folds] == [("P1",), ("P2",), ("P3",)]
    for fold in folds:
        splits.refuse_leak(index, fold, by="patient")
        assert set(index.patient[fold.test]) == set(fold.held_out)
        assert len(fold.train) + len(fold.test) == len(index)
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(len(index)))


def test_section_folds_hold_out_each_section() -> None:
    index = index_of(("a", "P1"), ("b", "P1"), ("c", "P2"))
    folds = plans.outer_folds(index, "section")
    assert [set(index.section[fold.test]) for fold in folds] == [{"a"}, {"b"}, {"c"}]
    assert [splits.leaking_patients(index, fold) for fold in folds] == [("P1",), ("P1",), ()]
    assert plans.leaking(index, folds) == ["P1"]


def test_split_is_by_patient_where_there_are_two() -> None:
    assert plans.default_split(index_of(("a", "P1"), ("b", "P2"))) == "patient"
    assert plans.default_split(index_of(("a", "P1"), ("b", "P1"))) == "section"


@pytest.mark.parametrize(
    ("by", "message"), [("patient", "`split` section"), ("section", "`histospace-tf fit`")]
)
def test_a_single_group_cannot_be_held_out_in_turn(by: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plans.outer_folds(index_of(("a", "P1")), by)
