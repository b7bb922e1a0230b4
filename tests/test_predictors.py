"""The seam: whatever is registered as a predictor is fitted, scored and shown beside ours.

`TinyNetwork` is all that a published network needs here; nothing else in the project knows it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import anndata
import keras
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from histospace_tf import training
from histospace_tf.cli import main
from histospace_tf.cohort.sides import SpotsOfSection, TrainingSpots
from histospace_tf.config import Config
from histospace_tf.data_pipelines.gene_panel import GenePanel
from histospace_tf.folds import held_out_predictions
from histospace_tf.foreign_encoders import onnx_layer
from histospace_tf.models import losses
from histospace_tf.predictors import ours, registry, saved_baselines
from histospace_tf.predictors.predictor import Fitted, Predictor
from histospace_tf.reports import score_table
from histospace_tf.requests import EvaluateRequest, refusals
from histospace_tf.training import Schedule, Session, Validation
from histospace_tf.vocabulary import InputError
from made import encoders, patches
from made.configs import tiny_config

TILE_PX, BATCH = 24, 8


class FittedNetwork(Fitted):
    """A trained network, and what turns its output into the unit."""

    def __init__(self, trained: training.Trained, panel: GenePanel) -> None:
        self.network, self.panel, self.history = trained.model, panel, trained.history
        self.choice = {"epochs": trained.best_epoch}

    def predict(self, spots: SpotsOfSection) -> np.ndarray:
        tiles = spots.tile_dataset(batch_size=BATCH, tile_px=TILE_PX)
        return self.panel.to_unit(
            np.concatenate([np.asarray(self.network(batch, training=False)) for batch in tiles])
        )


class TinyNetwork(Predictor):
    """One convolution, end to end from tiles of its own size, with early stopping."""

    name, label = "tiny_network", "tiny network"
    is_compared = True
    colour, marker = "#117733", "8"

    def fit(self, spots: TrainingSpots, settings: Config, session: Session) -> FittedNetwork:
        def build() -> keras.Model:
            keras.utils.set_random_seed(session.seed)
            tile = keras.Input((TILE_PX, TILE_PX, 3), name="tile")
            maps = keras.layers.Conv2D(4, 5, strides=4, activation="relu")(tile)
            pooled = keras.layers.GlobalAveragePooling2D()(maps)
            return keras.Model(tile, keras.layers.Dense(len(spots.panel))(pooled))

        (inner,) = spots.inner_folds(1)
        trained = training.train(
            build,
            lambda epoch: spots.tile_dataset(
                inner.train,
                batch_size=BATCH,
                tile_px=TILE_PX,
                order_seed=(session.seed, epoch),
            ),
            Schedule(losses.loss("mse"), learning_rate=1e-3, epochs=3, patience=2),
            session.within(self.name),
            stage=self.name,
            validation=Validation(
                spots.tile_dataset(inner.test, batch_size=BATCH, tile_px=TILE_PX)
            ),
            verbose=0,
        )
        return FittedNetwork(trained, spots.panel)


class WholeSection(Predictor):
    """The training mean plus a slope along a section's x: it takes all spots of one at once."""

    name, label = "whole_section", "whole section"
    is_compared = True

    def fit(self, spots: TrainingSpots, settings: Config, session: Session) -> Fitted:
        mean = spots.measured[spots.rows].mean(axis=0)

        class Sloped(Fitted):
            def predict(self, spots: SpotsOfSection) -> np.ndarray:
                x = spots.centres_px[:, 0]
                slope = (x - x.mean()) / (np.ptp(x) + 1)
                return (mean + slope[:, None]).astype(np.float32)

        return Sloped()


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    for predictor in (TinyNetwork(), WholeSection()):
        registry.register(predictor)
    yield
    for name in ("tiny_network", "whole_section"):
        registry.unregister(name)


@pytest.fixture(scope="module")
def evaluated(
    small_tissue: Path, registered: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """An evaluation from the command line with both and with kept features, and its output."""
    folder = tmp_path_factory.mktemp("compared")
    encoder = encoders.onnx_file(folder / "theirs.onnx")
    encoders.keras_model(side=None).save(folder / "normal.keras")
    kept = patches.write_cohort(folder / "kept", small_tissue)
    settings = folder / "config.json"
    settings.write_text(json.dumps(tiny_config(tiles__tile_px=32, target__genes=6).to_json()))
    seen: list[int] = []
    run = onnx_layer.run

    def counted(path: str, output: str, tiles: np.ndarray) -> np.ndarray:
        seen.append(len(tiles))
        return run(path, output, tiles)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_layer, "run", counted)
        done = CliRunner().invoke(
            main,
            [
                *("evaluate", str(small_tissue), "--out", str(folder / "out"), "--no-complexities"),
                *("--config", str(settings), "--compare", "tiny_network"),
                *("--compare", "whole_section", "--features", f"uni={kept}"),
                *("--compare", f"probe:{encoder},mpp=2,pixels=imagenet"),
                "--compare",
                f"probe:{folder}/normal.keras,px=40,mpp=image,pixels=0..1,colours=normalised,"
                "name=normal",
            ],
        )
    assert done.exit_code == 0, done.output
    # One tile for its shape, two and one to try it out, and each spot once for all folds.
    sections = json.loads((folder / "out" / "scores.json").read_text())["sections"]
    assert sum(seen) == 4 + sum(section["spots"] for section in sections.values())
    return folder / "out", done.output


def test_a_registered_network_is_trained_scored_and_printed(evaluated: tuple[Path, str]) -> None:
    out, printed = evaluated
    scores = json.loads((out / "scores.json").read_text())
    blocks = [*(e["rows"] for e in scores["sections"].values()), scores["mean"], scores["pooled"]]
    for rows in blocks:
        names = list(rows)
        assert names[:4] == ["model", "model_single_tile", "tiny_network", "whole_section"]
        probes = ["probe:theirs.onnx", "probe:normal", "probe:uni", "head:uni"]
        assert names[4:9] == [*probes, "gene_mean"]
        assert rows["tiny_network"]["mse"] > 0
        assert rows["tiny_network"] != rows["whole_section"]
    assert printed.count("  tiny network ") == printed.count("  whole section ") == len(blocks)
    for entry in scores["sections"].values():
        assert "tiny_network" in entry["depth"]
    genes = pd.read_csv(out / "gene_scores.csv")
    assert {"tiny_network", "whole_section"} <= set(genes)
    manifest = json.loads((out / "manifest.json").read_text())
    for fold in manifest["folds"].values():
        assert 1 <= fold["chosen"]["tiny_network"]["epochs"] <= 3
        assert "whole_section" not in fold["chosen"]  # it has nothing to choose
    history = pd.read_csv(out / "history.csv")
    assert set(history.loc[history["stage"] == "tiny_network", "fold"]) == {"A", "B", "C"}


def test_kept_features_are_scored_by_a_probe_and_the_recommended_head(
    evaluated: tuple[Path, str],
) -> None:
    out, printed = evaluated
    assert (
        "uni, section A1: 196 patches of 100 px (69 um) in A1.h5, all 13 spots have one." in printed
    )
    assert printed.count("  probe of uni ") == printed.count("  head on uni ") == 5
    manifest = json.loads((out / "manifest.json").read_text())
    assert [part["patches"] for part in manifest["features"]["uni"].values()] == [196] * 3
    for fold in manifest["folds"].values():
        assert fold["chosen"]["probe:uni"]["features"] == 8
        assert fold["chosen"]["head:uni"]["strength"] > 0
    stages = set(pd.read_csv(out / "history.csv")["stage"])
    assert {"probe:uni", "head:uni", "head:uni_inner1"} <= stages
    layers = anndata.read_h5ad(out / "predictions.h5ad").layers
    assert {"probe:uni", "head:uni"} <= set(layers)
    page = (out / "report.html").read_text()
    assert page.count('<th scope="row">head on uni</th>') >= 4


def test_a_probe_of_a_brought_encoder_is_scored_and_its_settings_are_recorded(
    evaluated: tuple[Path, str],
) -> None:
    out, printed = evaluated
    scores = json.loads((out / "scores.json").read_text())
    blocks = [*(entry["rows"] for entry in scores["sections"].values()), scores["mean"]]
    for rows in blocks:
        assert 0 < rows["probe:theirs.onnx"]["mse"] != rows["probe:normal"]["mse"]
    assert "probe of theirs.onnx" in printed
    assert "probe of theirs.onnx" in (out / "report.html").read_text()
    manifest = json.loads((out / "manifest.json").read_text())
    for fold in manifest["folds"].values():
        chosen = fold["chosen"]["probe:theirs.onnx"]
        assert chosen["features"] == chosen["components"] == encoders.CHANNELS
        assert chosen["strength"] > 0
        encoder = chosen["encoder"]
        assert (encoder["px"], encoder["mpp"], encoder["colours"]) == (encoders.SIDE, 2, "raw")
        assert len(encoder["checksum"]) == 64
        assert fold["chosen"]["probe:normal"]["encoder"]["mpp"] is None
    table = anndata.read_h5ad(out / "predictions.h5ad")
    # Folds have panels of their own.
    assert np.array_equal(np.isnan(table.layers["probe:theirs.onnx"]), np.isnan(table.X))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("probe:", "names no encoder; probe:ENCODER,px=N,mpp=UM,pixels=FORM is the form"),
        ("probe:absent.onnx,mpp=1", "encoder 'absent.onnx' does not exist"),
        ("probe:EfficientNetB0", "does not say mpp and px of its tiles"),
    ],
)
def test_a_probe_that_cannot_be_made_is_refused_before_any_work(
    text: str, message: str, small_tissue: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        refusals.refuse(EvaluateRequest(small_tissue, tmp_path / "out", compare=[text]))
    with pytest.raises(InputError, match=r"one of .*, probe:ENCODER,.* works"):
        registry.compared(["prob:EfficientNetB0"])
    with pytest.raises(InputError, match="two 'probe:EfficientNetB0'; tell them apart with name="):
        registry.compared([f"probe:EfficientNetB0,px=64,mpp={mpp}" for mpp in (1, 2)])
    assert list(tmp_path.iterdir()) == []


def test_a_registered_network_is_in_figures_and_report(evaluated: tuple[Path, str]) -> None:
    out, _ = evaluated
    page = (out / "report.html").read_text()
    assert page.count('<th scope="row">tiny network</th>') >= 4
    assert TinyNetwork.colour in (out / "figures" / "gene_r_by_section.svg").read_text()


def test_a_mistyped_name_is_told_with_those_that_work(small_tissue: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", str(small_tissue), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, [*arguments, "--compare", "tiny_netwrk"])
    assert done.exit_code == 2
    assert "tiny_network" in done.output
    assert list(tmp_path.iterdir()) == []


class Spy(Predictor):
    """Reads what was measured, and says so or not."""

    name, label = "gene_mean", "gene mean"  # in place of an entry of every fold
    kind = "baseline"

    def fit(self, spots: TrainingSpots, settings: Config, session: Session) -> Fitted:
        class Copied(Fitted):
            def predict(self, spots: SpotsOfSection) -> np.ndarray:
                return spots.measured

        return Copied()


def test_a_predictor_that_does_not_say_so_is_refused_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, encoded_spots: Any
) -> None:
    fitted = {"gene_mean": Spy().fit(*cast(Any, (None, None, None)))}
    encoded, panel = encoded_spots
    rows = np.arange(len(encoded.spots))
    monkeypatch.setitem(registry._ENTRIES, "gene_mean", Spy())
    with pytest.raises(InputError, match="reads_held_out"):
        held_out_predictions.predicted(encoded, rows, fitted, panel)
    monkeypatch.setattr(Spy, "reads_held_out", True)
    (section, *_) = held_out_predictions.predicted(encoded, rows, fitted, panel)
    np.testing.assert_array_equal(np.asarray(section.predictions["gene_mean"]), section.measured)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (lambda n, g: np.zeros((n, g + 1)), r"shape \(\d+, 5\), where \(spots, genes\) is"),
        (lambda n, g: np.full((n, g), np.nan), "not finite"),
    ],
)
def test_values_that_do_not_fit_are_refused_by_the_predictors_name(
    encoded_spots: Any, values: Any, message: str
) -> None:
    class Wrong(Fitted):
        def predict(self, spots: SpotsOfSection) -> np.ndarray:
            return values(len(spots), len(spots.panel))

    encoded, panel = encoded_spots
    with pytest.raises(InputError, match=f"'tiny_network', section 'A1': .*{message}"):
        held_out_predictions.predicted(
            encoded, np.arange(len(encoded.spots)), {"tiny_network": Wrong()}, panel
        )


@pytest.fixture
def encoded_spots() -> tuple[Any, GenePanel]:
    """One section without tiles: enough for predictors that look at none."""
    from histospace_tf.cohort.encoders import EncodedSpots
    from histospace_tf.cohort.paired import PairedSpots
    from made.tissue import panel, section

    config = tiny_config()
    spots = PairedSpots.of([section("A1", "A")], config)
    return EncodedSpots(spots, cast(Any, None), config, Path("unused")), panel()


def test_names_stand_in_the_order_of_tables_and_are_unique() -> None:
    names = [entry.name for entry in registry.always()]
    assert names == [
        *("model", "model_single_tile", "gene_mean", "patient_mean", "colour_ridge"),
        *("neighbour_oracle", "resampling_ceiling"),
    ]
    assert registry.in_order(["theirs", "gene_mean", "model"]) == ["model", "theirs", "gene_mean"]
    assert [e.name for e in registry.entries() if e.reads_held_out] == names[-2:]
    with pytest.raises(InputError, match="already"):
        registry.register(TinyNetwork())
    with pytest.raises(InputError, match="taken"):
        registry.register(Spy())
    assert score_table.table({"sections": {}}) == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"is_compared": False}, "is_compared = True"),
        ({"kind": "mine"}, "kind 'mine'; one of ours, other, baseline, mark"),
        ({"marker": None}, "colour and marker go together"),
        ({"name": ""}, "needs a name"),
        ({"name": "a/b"}, "a name without '/' is needed"),
    ],
)
def test_an_entry_that_could_not_work_is_refused(changes: dict[str, Any], message: str) -> None:
    entry = type("Odd", (TinyNetwork,), {"name": "odd", **changes})()
    with pytest.raises(InputError, match=message):
        registry.register(entry)
    assert registry.entry("odd") is None


def test_arrays_of_two_predictors_are_never_mixed_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Taking(Fitted):
        def predict(self, spots: SpotsOfSection) -> None:
            return None

        def arrays(self) -> dict[str, np.ndarray]:
            return {"genes": np.zeros(1)}

    with pytest.raises(InputError, match="'gene_mean': array 'genes' is another's"):
        saved_baselines.save({"gene_mean": Taking()}, ["A"], tmp_path / saved_baselines.FILE)
    assert list(tmp_path.iterdir()) == []


def test_figures_tell_all_predictors_apart() -> None:
    names = [*(entry.name for entry in registry.entries()), "theirs", "others"]
    assert len({registry.style(name, names) for name in names}) == len(names)


@pytest.mark.parametrize("architecture", ["pooled", "context"])
def test_a_single_tile_head_that_is_the_models_own_is_trained_once(
    architecture: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import types

    from histospace_tf.predictors import head_training

    trained: list[str] = []

    def pretended(data: Any, rows: Any, settings: Any, session: Any) -> Any:
        trained.append(settings.architecture)
        return types.SimpleNamespace(
            head=object(), choice={"epochs": 1}, history=[{"stage": settings.architecture}]
        )

    monkeypatch.setattr(head_training, "train_head", pretended)
    settings = tiny_config(regressor__architecture=architecture)
    spots = types.SimpleNamespace(
        heads={},
        panel=None,
        encoded=types.SimpleNamespace(inputs=lambda _: {}),
        targets=None,
        index=None,
        weights_of=lambda _: None,
        axes=None,
        rows=None,
    )
    session = Session(cast(Any, None), 0, False, tmp_path)
    fitted = [
        entry.fit(cast(Any, spots), settings, session)
        for entry in (ours.Model(), ours.SingleTile())
    ]
    history = [row["stage"] for one in fitted for row in one.history]
    wanted = ["pooled"] if architecture == "pooled" else ["context", "pooled"]
    assert trained == history == wanted
    assert [one.symmetries for one in fitted] == [None, 1]
