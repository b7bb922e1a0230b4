"""Files that are damaged, foreign or no files: one line, a known exit code, never a trace."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner, Result

from histospace_tf import bundle, outputs
from histospace_tf.cli import main
from histospace_tf.commands import session
from histospace_tf.presets import preset
from made.bundles import tiny_bundle
from made.evaluations import write_folder
from made.predictions import prediction
from made.tissue import he_picture, write_picture
from made.visium import made_h5ad, write_run

pytestmark = pytest.mark.slow

SIDE = (420, 360)


def spaceranger(folder: Path, **kinds: str) -> Path:
    return write_run(folder / "run", he_picture(size=SIDE), **kinds)  # type: ignore[arg-type]


def anndata_file(folder: Path) -> Path:
    folder.mkdir()
    made_h5ad(he_picture(size=SIDE)).write_h5ad(folder / "a.h5ad")
    write_picture(folder / "a.png", he_picture(size=SIDE))
    return folder / "a.h5ad"


def table_of_sections(folder: Path) -> Path:
    spaceranger(folder)
    (folder / "sections.csv").write_text("section,patient,path,image\nA,p,run,run/tissue.png\n")
    return folder


def legacy(folder: Path) -> Path:
    from histospace_tf.data_pipelines import simulation

    simulation.simulate(folder, patients=2, spots_xy=(3, 3), seed=1)
    return folder


def picture(suffix: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        folder.mkdir()
        file = folder / f"slide{suffix}"
        if suffix in (".tif", ".ome.tif"):
            tifffile.imwrite(
                file, he_picture(size=SIDE), photometric="rgb", tile=(128, 128), compression="zlib"
            )
        else:
            write_picture(file, he_picture(size=SIDE))
        return file

    return write


INPUTS: dict[str, Callable[[Path], Path]] = {
    "h5": spaceranger,
    "mtx": lambda folder: spaceranger(folder, matrix="mtx", positions="csv"),
    "mtx.gz": lambda folder: spaceranger(folder, matrix="mtx.gz", positions="parquet"),
    "h5ad": anndata_file,
    "sections.csv": table_of_sections,
    "legacy": legacy,
    "tif": picture(".tif"),
    "ome.tif": picture(".ome.tif"),
    "png": picture(".png"),
    "jpg": picture(".jpg"),
}


def cut(file: Path, chance: random.Random) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: chance.randrange(len(data) + 1)])


def flipped(file: Path, chance: random.Random) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(max(1, len(data) // 2000)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    file.write_bytes(data)


def header_flipped(file: Path, chance: random.Random) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(4):
        data[chance.randrange(min(len(data), 200))] = chance.randrange(256)
    file.write_bytes(data)


def empty(file: Path, _: random.Random) -> None:
    file.write_bytes(b"")


def noise(file: Path, chance: random.Random) -> None:
    file.write_bytes(chance.randbytes(300))


def other_text(file: Path, chance: random.Random) -> None:
    texts = [
        "\0\0",
        "[]",
        "{}",
        "null",
        "1",
        '{"a": {"b": []}}',
        "a,b\n1\n",
        "\ufeff\n",
        "x\ty\n\n",
        "{",
    ]
    file.write_text(chance.choice(texts), encoding="utf-8")


def lines_shuffled(file: Path, chance: random.Random) -> None:
    lines = file.read_bytes().split(b"\n")
    chance.shuffle(lines)
    file.write_bytes(b"\n".join(lines))


def folder_instead(file: Path, _: random.Random) -> None:
    file.unlink()
    file.mkdir()


def dangling(file: Path, _: random.Random) -> None:
    file.unlink()
    file.symlink_to("nowhere")


def looped(file: Path, _: random.Random) -> None:
    file.unlink()
    file.symlink_to(file.name)


def gone(file: Path, _: random.Random) -> None:
    file.unlink()


DAMAGES = (
    *(cut, flipped, header_flipped, empty, noise, other_text, lines_shuffled, folder_instead),
    *(dangling, looped, gone),
)


def hdf5_part(file: Path, chance: random.Random) -> None:
    """One dataset or group of an HDF5 file is another than it should be."""
    with h5py.File(file, "a") as h5:
        names: list[str] = []
        h5.visit(names.append)
        name = chance.choice(names)
        attributes = dict(h5[name].attrs)
        shape = getattr(h5[name], "shape", None)
        kind = chance.randrange(7)
        del h5[name]
        if kind == 0:
            h5.create_group(name)
        elif kind == 1:
            h5[name] = np.array([b"\xff\xfe", b"x"])
        elif kind == 2:
            h5[name] = 3.5
        elif kind == 3:
            h5[name] = np.full(shape or (2,), np.nan)
        elif kind == 4:
            h5[name] = np.zeros((0, *(shape or (1,))[1:]))
        elif kind == 5:
            h5[name] = np.arange(7) - 3
        if kind != 6 and chance.random() < 0.7:
            h5[name].attrs.update(attributes)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def judged(result: Result, said: str, codes: tuple[int, ...]) -> None:
    assert result.exception is None or isinstance(result.exception, SystemExit), said
    assert "Traceback" not in result.output, said
    assert result.exit_code in codes, f"{said}: {result.output}"
    errors = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(errors) <= 1, f"{said}: {result.output}"
    assert "fault of histospace-tf" not in result.output, f"{said}: {result.output}"
    if result.exit_code == 3:  # where a header's size is damaged
        assert "not enough memory" in result.output, f"{said}: {result.output}"


SEEDS = range(int(os.environ.get("HISTOSPACE_DAMAGES", "1")))  # of each damage


@pytest.mark.parametrize("kind", INPUTS)
def test_check_of_damaged_data(kind: str, tmp_path: Path) -> None:
    data = INPUTS[kind](tmp_path / "whole")
    inside = data.relative_to(tmp_path / "whole")
    files = sorted(p for p in (tmp_path / "whole").rglob("*") if p.is_file())
    chance = random.Random(kind)
    for damage in (*DAMAGES, hdf5_part):
        for seed in SEEDS:
            target = chance.choice(files)
            if damage is hdf5_part:
                target = next((f for f in files if f.suffix in (".h5", ".h5ad")), target)
                if target.suffix not in (".h5", ".h5ad"):
                    break
            copy = tmp_path / "damaged"
            shutil.copytree(tmp_path / "whole", copy, symlinks=True)
            file = copy / target.relative_to(tmp_path / "whole")
            damage(file, chance)
            said = f"{damage.__name__} {file.name} {seed}"
            judged(run("check", copy / inside), said, (0, 1, 2, 3))
            shutil.rmtree(copy)


@pytest.fixture
def stops_before_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise SystemExit(0)

    monkeypatch.setattr(session, "load_tensorflow", stop)


def json_part(file: Path, chance: random.Random) -> None:
    """One value of a JSON file is of another kind."""
    values = json.loads(file.read_text())
    at: Any = values
    while True:
        key = chance.choice(list(at) if isinstance(at, dict) else range(len(at)))
        if not isinstance(at[key], dict | list) or not at[key] or chance.random() < 0.3:
            break
        at = at[key]
    at[key] = chance.choice([None, "text", -1, 1e400, [], {}, [[1]], True, {"a": 1}, 10**30])
    file.write_text(json.dumps(values))


@pytest.mark.usefixtures("stops_before_tensorflow")
def test_models_and_settings_that_are_damaged(tmp_path: Path) -> None:
    whole, slide = tmp_path / "whole", write_picture(tmp_path / "slide.png", he_picture(size=SIDE))
    bundle.save(tiny_bundle("context"), whole / "run" / "bundle")
    (whole / "config.json").write_text(json.dumps(preset("recommended").to_json()))
    (whole / "genes.txt").write_text("ERBB2\nGNAS\n")
    data = legacy(tmp_path / "data")
    commands: list[tuple[str, list[tuple[object, ...]]]] = [
        (
            "run/bundle/bundle.json",
            [("export",), ("predict", slide, "--mpp", 1, "--model")],
        ),
        ("config.json", [("fit", data, "--config")]),
        ("genes.txt", [("fit", data, "--genes")]),
    ]
    chance = random.Random(0)
    for name, lines in commands:
        for damage in (*DAMAGES, *(json_part,) * 6):
            for seed in SEEDS:
                if damage is json_part and not name.endswith(".json"):
                    continue
                copy = tmp_path / "damaged"
                shutil.copytree(whole, copy)
                damage(copy / name, chance)
                for line in lines:
                    target = copy / "run" if "run" in name else copy / name
                    result = run(*line, target, "--out", tmp_path / "out.h5ad")
                    judged(result, f"{line[0]} {damage.__name__} {name} {seed}", (0, 2, 3))
                assert not (tmp_path / "out.h5ad").exists()
                shutil.rmtree(copy)


def test_reports_of_damaged_folders(tmp_path: Path) -> None:
    whole = write_folder(tmp_path / "whole")
    files = sorted(p for p in whole.rglob("*") if p.is_file() and p.name != "he.png")
    chance = random.Random(0)
    only_of: dict[Any, tuple[str, ...]] = {hdf5_part: (".h5ad",), json_part: (".json",)}
    for damage in (cut, other_text, folder_instead, hdf5_part, json_part):  # a report takes seconds
        for seed in SEEDS:
            kinds = only_of.get(damage)
            target = chance.choice([f for f in files if kinds is None or f.suffix in kinds])
            copy = tmp_path / "damaged"
            shutil.copytree(whole, copy)
            damage(copy / target.relative_to(whole), chance)
            said = f"{damage.__name__} {target.name} {seed}"
            judged(run("report", copy), said, (0, 2))
            shutil.rmtree(copy)


def test_predictions_that_are_damaged_are_not_converted(tmp_path: Path) -> None:
    whole = tmp_path / "slide.h5ad"
    outputs.write_h5ad(prediction(), whole)
    chance = random.Random(0)
    for damage in (*DAMAGES, *(hdf5_part,) * 6):
        for seed in SEEDS:
            copy = tmp_path / "damaged.h5ad"
            shutil.copy(whole, copy)
            damage(copy, chance)
            out = tmp_path / "out"
            files = (
                "--table",
                out / "t.csv",
                "--geojson",
                out / "g.json",
                "--page",
                out / "p.html",
            )
            result = run("convert", copy, *files)
            judged(result, f"{damage.__name__} {seed}", (0, 2))
            shutil.rmtree(out, ignore_errors=True)
            shutil.rmtree(copy) if copy.is_dir() else copy.unlink(missing_ok=True)
