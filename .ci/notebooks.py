"""Executes the notebooks of docs/notebooks.

    python .ci/notebooks.py check SCRATCH         on small made data; the files stay as they are
    python .ci/notebooks.py keep NAME FOLDER      in FOLDER, on the data there; outputs are kept
    python .ci/notebooks.py visium SLIDE FOLDER   makes visium_run/ of a slide, with made-up counts

A notebook finds its data by the path at its top, from the folder that it is executed in.
"""

import base64
import io
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import numpy as np
import tifffile
from nbclient import NotebookClient
from PIL import Image

TOP = Path(__file__).parents[1]
sys.path[:0] = [str(TOP), str(TOP / "tests")]

from histospace_tf.data_pipelines import simulation, slides  # noqa: E402
from made import visium  # noqa: E402

NOTEBOOKS = TOP / "docs" / "notebooks"
SLOWEST = 300  # seconds that one cell may take on made data
LARGEST = 700_000  # bytes of a notebook with its outputs


def executed(name: str, folder: Path, *, seconds: int | None) -> nbformat.NotebookNode:
    """The notebook with its outputs, without progress bars and times of execution.

    Raises:
        CellExecutionError: a cell failed; the error holds it, and its traceback.
    """
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    started = time.monotonic()
    NotebookClient(
        notebook,
        timeout=seconds,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    print(f"{name}: {time.monotonic() - started:.0f} s")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
            for data in (out.data for out in cell.outputs if "image/png" in out.get("data", {})):
                data["image/png"] = in_few_colours(data["image/png"])
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def in_few_colours(png: str) -> str:
    """A picture with 128 colours, a third of the size; both in base 64."""
    small = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.quantize(128).save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def refuse_stale(name: str) -> None:
    """Leaves where outputs are not those of one execution from top to bottom, or are large."""
    file = NOTEBOOKS / f"{name}.ipynb"
    cells = [c for c in nbformat.read(file, as_version=4).cells if c.cell_type == "code"]
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        sys.exit(f"{file}: execute it anew, its cells were not executed one after another")
    if any(out.output_type == "error" for cell in cells for out in cell.outputs):
        sys.exit(f"{file}: an output is an error")
    if file.stat().st_size > LARGEST:
        sys.exit(f"{file}: {file.stat().st_size:,} bytes; below {LARGEST:,} is promised")


def make_visium_run(folder: Path, picture: np.ndarray, mpp: float, n_genes: int | None) -> None:
    """A run whose genes are the packaged model's, on a TIFF that states its scale."""
    genes = (TOP / "models/pretrained/breast-her2st/genes.csv").read_text().splitlines()[1:]
    names = [line.split(",")[0] for line in genes[:n_genes]]
    run = folder / "visium_run"
    visium.write_run(run / "outs", picture, positions="csv", mpp=mpp, genes=names, image=None)
    tifffile.imwrite(
        run / "tissue.tif",
        picture,
        photometric="rgb",
        tile=(256, 256),
        compression="jpeg",
        resolution=(10_000 / mpp, 10_000 / mpp),
        resolutionunit="CENTIMETER",
    )


def check(scratch: Path) -> None:
    scratch.mkdir(parents=True)
    make_visium_run(scratch, visium.noise_picture(), visium.MPP, 40)
    simulation.simulate(scratch / "her2st" / "data", patients=2, spots_xy=(4, 4), seed=7)
    names = sorted(file.stem for file in NOTEBOOKS.glob("*.ipynb"))
    for name in names:
        refuse_stale(name)
    with ThreadPoolExecutor() as pool:  # each notebook is a process of its own
        list(pool.map(lambda name: executed(name, scratch, seconds=SLOWEST), names))


def keep(name: str, folder: Path) -> None:
    nbformat.write(executed(name, folder, seconds=None), NOTEBOOKS / f"{name}.ipynb")
    refuse_stale(name)


def main(command: str, *rest: str) -> None:
    if command == "check":
        check(Path(rest[0]))
    elif command == "keep":
        keep(rest[0], Path(rest[1]))
    else:
        with slides.open_slide(Path(rest[0])) as slide:
            picture = slide.region(0, 0, slide.width_px, slide.height_px)
            make_visium_run(Path(rest[1]), picture, slide.mpp, None)


if __name__ == "__main__":
    main(*sys.argv[1:])
