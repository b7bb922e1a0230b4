"""Tiny sections in the layouts that the readers know, for tests."""

from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path

import cv2
import numpy as np

PITCH_PX = 40.0  # so 5 microns per pixel
CORNER_PX = (20.0, 30.0)  # pixel x, y of array position 0, 0
SIZE_PX = (300, 260)  # width, height
GENES = ("GENE0", "GENE1", "GENE2", "GENE3", "GENE4")


@dataclasses.dataclass
class MadeSection:
    """What stands in a section's files; change it before it is written."""

    name: str
    patient: str
    array: list[tuple[int, int]]
    counts: list[list[str]]
    pixels: list[tuple[float, float]]
    genes: list[str] = dataclasses.field(default_factory=lambda: list(GENES))
    selected: list[int] | None = None
    size: tuple[int, int] = SIZE_PX

    @property
    def ids(self) -> list[str]:
        return [f"{x}x{y}" for x, y in self.array]


def made_section(name: str = "A1", patient: str = "A", *, seed: int = 0) -> MadeSection:
    """A sound section: 5 x 4 spots, wider than high, five genes."""
    rng = np.random.default_rng(seed)
    array = [(x, y) for y in range(1, 5) for x in range(1, 6)]
    counts = rng.poisson(4, (len(array), len(GENES)))
    counts[:, 0] += 1  # no spot without counts
    return MadeSection(
        name=name,
        patient=patient,
        array=array,
        counts=[[str(v) for v in row] for row in counts],
        pixels=[(CORNER_PX[0] + PITCH_PX * x, CORNER_PX[1] + PITCH_PX * y) for x, y in array],
    )


def write_her2st(folder: Path, *sections: MadeSection, images: bool = True) -> Path:
    """HER2ST's layout; returns `folder`."""
    for part in ("ST-cnts", "ST-spotfiles", "ST-imgs"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for section in sections:
        write_counts(folder / "ST-cnts" / f"{section.name}.tsv.gz", section)
        selected = section.selected or [1] * len(section.array)
        lines = ["x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected"]
        lines += [
            f"{x}\t{y}\t{x}.01\t{y}.02\t{px}\t{py}\t{flag}"
            for (x, y), (px, py), flag in zip(section.array, section.pixels, selected, strict=True)
        ]
        table = folder / "ST-spotfiles" / f"{section.name}_selection.tsv"
        table.write_text("\n".join(lines) + "\n")
        if images:
            inside = folder / "ST-imgs" / section.patient / section.name
            inside.mkdir(parents=True, exist_ok=True)
            write_image(inside / f"HE_{section.name}.jpg", section.size)
    return folder


def write_stnet(folder: Path, *sections: MadeSection, line_end: str = "\n") -> Path:
    """ST-Net's release layout, prefixes as inconsistent as there; returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        "type,patient,replicate,histology_image,spot_coordinates,count_matrix,tumor_annotation"
    ]
    for section in sections:
        number, replicate = section.patient.removeprefix("BC"), section.name
        names = [
            f"HE_BT{number}_{replicate}.jpg",
            f"spots_BT{number}_{replicate}.csv.gz",
            f"BC{number}_{replicate}_stdata.tsv.gz",
            f"BC{number}_{replicate}_Coords.tsv.gz",
        ]
        lines.append(",".join(["HER2_luminal", section.patient, replicate, *names]))
        write_image(folder / names[0], section.size)
        spots = [",X,Y"] + [
            f"{name},{px},{py}" for name, (px, py) in zip(section.ids, section.pixels, strict=True)
        ]
        gzipped(folder / names[1], line_end.join(spots) + line_end)
        write_counts(folder / names[2], section, line_end=line_end)
        # Four header names over five columns, CR line ends, coordinates not always whole.
        notes = ["id\tx\ty\tlab"] + [
            f"{name}\t{x}.04\t{y}\t1\ttumor"
            for name, (x, y) in zip(section.ids, section.array, strict=True)
        ]
        gzipped(folder / names[3], "\r".join(notes) + "\r")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def write_counts(path: Path, section: MadeSection, *, line_end: str = "\n") -> None:
    lines = ["\t".join(["", *section.genes])]
    lines += [
        "\t".join([name, *row]) for name, row in zip(section.ids, section.counts, strict=True)
    ]
    gzipped(path, line_end.join(lines) + line_end)


def write_image(path: Path, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(7)
    noise = rng.integers(90, 230, (size[1], size[0], 3), dtype=np.uint8)
    noise[..., 1] -= 40  # green is the lowest, as in H&E
    cv2.imwrite(str(path), noise)


def gzipped(path: Path, text: str) -> None:
    path.write_bytes(gzip.compress(text.encode()))


def only_b1(her2st: Path, folder: Path) -> Path:
    """Links to section B1's files alone, which are read in a second."""
    for name in (
        "ST-cnts/B1.tsv.gz",
        "ST-spotfiles/B1_selection.tsv",
        "ST-pat/lbl/B1_labeled_coordinates.tsv",
    ):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).symlink_to((her2st / name).resolve())
    return folder
