"""Draws the pictures of docs/gallery.md: `python benchmarks/gallery.py SLIDE [--work FOLDER]`.

Runs the commands on that page, as they stand there, in FOLDER: but for `fit`, whose picture is the
README's. Then keeps what they drew in docs/gallery/, as JPEG below 60 kB each. A command whose
output is in FOLDER already is left out, so after one has changed, delete what it wrote.

SLIDE: such as OpenSlide's CMU-1-Small-Region.svs. Two minutes of processor time; needs Chromium.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

TOP = Path(__file__).parents[1]
sys.path[:0] = [str(TOP), str(TOP / "tests")]

from made import chromium  # noqa: E402

PAGE = TOP / "docs" / "gallery.md"
PICTURES = TOP / "docs" / "gallery"
LARGEST = 60_000  # bytes
LONGEST = (1000, 850, 700, 600)  # pixels of the longer side
QUALITIES = (85, 75, 65, 55)
# A picture's name: what it is made of, as a pattern in the folder of work. Of several the first.
DRAWN = {
    "check": "overlays/*",
    "normalize": "normalised/stain_panel.png",
    "map": "maps/HNRNPA2B1.png",
    "gene_map": "evaluation/figures/map_GNAS.png",
    "gene_r": "evaluation/figures/gene_r_by_section.png",
    "clusters": "evaluation/figures/clusters_*.png",
    "groups": "evaluation/figures/groups_GNAS.png",
    "genes": "evaluation/figures/genes_beside.png",
    "strengths": "evaluation/figures/strengths.png",
}
# Of these the upper part alone, this share of the height.
UPPER = {"gene_map": 0.355}
# And those of pages: file, and the window's width and height.
SHOWN = {
    "page": ("slide.html", 1366, 820),
    "page_phone": ("slide.html", 390, 844),
    "slides": ("pages/index.html", 1366, 820),
    "report": ("evaluation/report.html", 1366, 900),
    "report_phone": ("evaluation/report.html", 390, 844),
}


def commands() -> list[list[str]]:
    """The command lines on the page, split."""
    lines = re.findall(r"^\$ histospace-tf (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [shlex.split(line) for line in lines]


def run_all(slide: Path, work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "slide.svs").exists():
        shutil.copy(slide, work / "slide.svs")
    for command in commands():
        written = [option for option in ("--out", "--overlay") if option in command]
        if not written or (work / command[command.index(written[0]) + 1]).exists():
            continue
        print(shlex.join(["histospace-tf", *command]), flush=True)
        subprocess.run(
            [sys.executable, "-m", "histospace_tf", *command],
            cwd=work,
            stdout=subprocess.DEVNULL,
            check=command[0] != "check",  # whose exit code 1 is a warning about the data
            env=os.environ | {"PYTHONPATH": str(TOP)},
        )


def keep(picture: Image.Image, name: str) -> None:
    """Writes docs/gallery/NAME.jpg, as large and then as good as is small enough."""
    for longest, quality in itertools.product(LONGEST, QUALITIES):
        smaller = picture.convert("RGB")
        smaller.thumbnail((longest, longest), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        smaller.save(file, "JPEG", quality=quality, optimize=True, progressive=True)
        if file.tell() < LARGEST:
            (PICTURES / f"{name}.jpg").write_bytes(file.getvalue())
            print(f"{name}: {smaller.size} px, quality {quality}, {file.tell():,} bytes")
            return
    sys.exit(f"{name}: {file.tell():,} bytes even so")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("slide", type=Path)
    parser.add_argument("--work", type=Path, help="default: a folder that is deleted")
    given = parser.parse_args()
    program = chromium.command()
    if program is None:
        sys.exit("Chromium is absent: install it, or name it in HISTOSPACE_CHROMIUM")
    with tempfile.TemporaryDirectory() as scratch:
        work = (given.work or Path(scratch)).resolve()
        run_all(given.slide, work)
        PICTURES.mkdir(exist_ok=True)
        for name, pattern in DRAWN.items():
            drawn = sorted(work.glob(pattern))
            if not drawn:
                sys.exit(f"{name}: no {pattern} in {work}")
            with Image.open(drawn[0]) as picture:
                upper = round(picture.height * UPPER.get(name, 1))
                keep(picture.crop((0, 0, picture.width, upper)), name)
        with chromium.browser(program) as page:
            for name, (file, width, height) in SHOWN.items():
                page.resize(width, height, phone=width < 600)
                page.open(work / file)
                page.run("scrollTo(0, 0)")
                keep(Image.open(io.BytesIO(page.screenshot())), name)


if __name__ == "__main__":
    main()
