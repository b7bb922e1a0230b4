"""What a prediction is written as: which genes, refusals before the work, a finished file again."""

from __future__ import annotations

from pathlib import Path

import anndata
import pytest

from histospace_tf import outputs
from histospace_tf.slide_prediction import OutputFiles, written_files
from histospace_tf.vocabulary import InputError
from made.predictions import prediction, with_trust
from made.tissue import GENES


def everything(folder: Path) -> OutputFiles:
    return OutputFiles(
        maps=folder / "maps",
        page=folder / "a.html",
        heatmaps=folder / "heat",
        geojson=folder / "a.geojson",
        table=folder / "a.csv",
        spatialdata=folder / "a.zarr",
    )


def test_every_target_is_written_and_named(tmp_path: Path) -> None:
    table = with_trust(prediction())
    written = written_files.write_all(table, everything(tmp_path))
    assert [str(path.relative_to(tmp_path)) for path in written] == [
        *(f"maps/{gene}.png" for gene in written_files.drawn(table, OutputFiles())),
        "a.html",
        *(f"heat/{gene}.ome.tif" for gene in written_files.drawn(table, OutputFiles())),
        "a.geojson",
        "a.csv",
        "a.genes.csv",
        "a.zarr",
    ]
    assert all(path.exists() for path in written)
    assert written_files.write_all(table, OutputFiles()) == []


@pytest.mark.parametrize(
    ("show", "drawn", "measured"),
    [
        # Of the two trusted genes, the one that varies more comes first.
        ((), ["IGKC", "GNAS"], ["GNAS", "IGKC"]),
        (("ACTB",), ["ACTB"], ["ACTB"]),
        (("trusted",), ["GNAS", "IGKC"], ["GNAS", "IGKC"]),
        (("all",), list(GENES), list(GENES)),
    ],
)
def test_genes_that_are_shown(show: tuple[str, ...], drawn: list[str], measured: list[str]) -> None:
    table = with_trust(prediction())
    table.X[:, 3] *= 10
    files = OutputFiles(show=show)
    assert written_files.drawn(table, files) == drawn
    assert written_files.measured(table, files) == measured


def test_without_trust_all_genes_are_measured_and_three_drawn() -> None:
    table = prediction()
    table.X *= [1, 4, 3, 2]
    assert written_files.measured(table, OutputFiles()) == list(GENES)
    assert written_files.drawn(table, OutputFiles()) == ["GNAS", "ACTB", "IGKC"]
    with pytest.raises(InputError, match="no gene is trusted"):
        written_files.drawn(table, OutputFiles(show=("trusted",)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"show": ("GNAS",), "table": "a.csv"},
            "`maps` DIR, `page` FILE, `heatmaps` DIR or `geojson` FILE",
        ),
        ({"show": ("NOSUCH",), "maps": "m"}, "does not predict 'NOSUCH'"),
        ({"show": ("all", "GNAS"), "maps": "m"}, "'all' stands alone"),
        ({"page": "a.htm"}, r"\.html is needed"),
        ({"page": "finished.html"}, "`force`"),
        ({"geojson": "a.txt"}, r"\.geojson or \.json"),
        ({"table": "a.xlsx"}, r"\.csv or \.parquet"),
        ({"spatialdata": "a"}, r"\.zarr"),
        ({"geojson": "finished.json"}, "`force`"),
        ({"table": "finished.csv"}, "finished.genes.csv.*`force`"),
        ({"heatmaps": "finished"}, "`force`"),
        ({"show": ("GNAS",), "heatmaps": "finished"}, "GNAS.ome.tif.*`force`"),
        ({"show": ("trusted",), "maps": "finished"}, "`force`"),
    ],
)
def test_what_could_not_be_written_is_refused_at_once(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    (tmp_path / "finished").mkdir()
    for name in ("finished.json", "finished.html", "finished.genes.csv", "finished/GNAS.ome.tif"):
        (tmp_path / name).touch()
    given = {
        name: tmp_path / value if isinstance(value, str) else value
        for name, value in options.items()
    }
    files = OutputFiles(**given)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        written_files.check(files, GENES)
    if "`force`" in message:
        written_files.check(files, GENES, force=True)


@pytest.mark.slow
def test_finished_prediction_is_written_again_in_other_formats(tmp_path: Path) -> None:
    table = with_trust(prediction())
    outputs.write_h5ad(table, tmp_path / "a.h5ad")
    written_files.write_all(table, everything(tmp_path / "at_once"))
    written_files.convert(tmp_path / "a.h5ad", everything(tmp_path / "later"))
    for name in ("a.html", "a.geojson", "a.csv", "a.genes.csv"):
        first, second = (tmp_path / folder / name for folder in ("at_once", "later"))
        assert first.read_bytes() == second.read_bytes()


def test_what_is_no_prediction_is_refused(tmp_path: Path) -> None:
    table_file = OutputFiles(table=tmp_path / "t.csv")
    with pytest.raises(InputError, match="nothing to write"):
        written_files.convert(tmp_path / "a.h5ad", OutputFiles())
    with pytest.raises(InputError, match="does not exist"):
        written_files.convert(tmp_path / "a.h5ad", table_file)
    with pytest.raises(InputError, match="is a folder"):
        written_files.convert(tmp_path, table_file)
    (tmp_path / "a.h5ad").write_text("no HDF5")
    with pytest.raises(InputError, match="cannot be read"):
        written_files.convert(tmp_path / "a.h5ad", table_file)
    outputs.write_h5ad(anndata.AnnData(shape=(2, 2)), tmp_path / "b.h5ad")
    with pytest.raises(InputError, match=r'no var\["unit"\]'):
        written_files.convert(tmp_path / "b.h5ad", table_file)
    assert not (tmp_path / "t.csv").exists()
