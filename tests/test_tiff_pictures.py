"""Which picture of a TIFF is read, what is said of the others, and the scale that goes with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from histospace_tf.data_pipelines import slides
from histospace_tf.vocabulary import InputError, Problem
from made.pictures import picture

SCAN = picture(120, 160)
SMALL = picture(30, 30, seed=1)
TILED: dict[str, Any] = {"photometric": "rgb", "tile": (32, 32)}


def pages(path: Path, *written: tuple[np.ndarray, dict[str, Any]], **file: Any) -> Path:
    """A TIFF of pages without tifffile's own metadata."""
    with tifffile.TiffWriter(path, **file) as tiff:
        for pixels, options in written:
            tiff.write(pixels, **{**TILED, "metadata": None, **options})
    return path


def ome(path: Path, *written: tuple[np.ndarray, dict[str, Any]]) -> Path:
    """An OME-TIFF with an image each."""
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for pixels, metadata in written:
            options: dict[str, Any] = (
                {} if pixels.ndim == 3 and pixels.shape[2] == 3 else {"tile": (16, 16)}
            )
            kind = "rgb" if pixels.ndim == 3 and pixels.shape[2] == 3 else "minisblack"
            tiff.write(pixels, metadata=metadata, photometric=kind, **options)
    return path


def whole(path: Path) -> tuple[np.ndarray, tuple[Problem, ...]]:
    with slides.open_slide(path, mpp=0.5) as slide:
        assert slides.image_size(path) == (slide.width_px, slide.height_px)
        return slide.region(0, 0, slide.width_px, slide.height_px), slide.notes


@pytest.mark.parametrize("first", [True, False])
def test_the_scan_is_read_and_not_the_macro(tmp_path: Path, first: bool) -> None:
    scale = {"axes": "YXS", "PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
    scan = (SCAN, {**scale, "Name": "scan", "PhysicalSizeX": 0.7, "PhysicalSizeY": 0.7})
    macro = (SMALL, {**scale, "Name": "macro", "PhysicalSizeX": 4.0, "PhysicalSizeY": 4.0})
    path = ome(tmp_path / "a.ome.tif", *((macro, scan) if first else (scan, macro)))
    found, (note,) = whole(path)
    np.testing.assert_array_equal(found, SCAN)
    assert slides.stated_mpp(path) == pytest.approx(0.7)
    assert note.severity == "note"
    assert "160 x 120 px (scan). Not read: " in note.message
    assert "30 x 30 px (macro)" in note.message


def test_a_macro_larger_than_the_scan_is_still_a_macro(tmp_path: Path) -> None:
    scan, macro = (SCAN, {"axes": "YXS"}), (picture(300, 300), {"axes": "YXS", "Name": "Macro"})
    found, (note,) = whole(ome(tmp_path / "a.ome.tif", macro, scan))
    np.testing.assert_array_equal(found, SCAN)
    assert note.severity == "note"


def test_of_two_scenes_the_larger_is_read_with_a_warning(tmp_path: Path) -> None:
    other = picture(100, 150, seed=5)
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    path = ome(
        tmp_path / "a.ome.tif",
        (other, {**metadata, "Name": "Scene 1"}),
        (SCAN, {**metadata, "Name": "Scene 2"}),
    )
    found, (note,) = whole(path)
    np.testing.assert_array_equal(found, SCAN)
    assert note.severity == "warning"
    assert "number 1: 160 x 120 px (Scene 2)" in note.message
    assert "150 x 100 px (Scene 1)" in note.message
    assert "file of its own" in note.advice


def test_pages_of_a_slide_are_distinguished(tmp_path: Path) -> None:
    half, quarter = np.full((60, 80, 3), 50, np.uint8), np.full((30, 40, 3), 90, np.uint8)
    path = pages(
        tmp_path / "a.tif",
        (picture(40, 40, seed=2), {"description": "label 40x40"}),
        (half, {"subfiletype": 1}),
        (SCAN, {}),
        (quarter, {"subfiletype": 1}),
        (SMALL, {"subfiletype": 1}),  # of another shape: a thumbnail of something else
        (
            picture(200, 200, channels=1)[..., 0] > 99,
            {"photometric": "minisblack", "subfiletype": 4},
        ),
    )
    found, (note,) = whole(path)
    np.testing.assert_array_equal(found, SCAN)
    assert note.severity == "note"
    for other in ("40 x 40 px (label)", "30 x 30 px (a smaller copy)", "200 x 200 px (a mask)"):
        assert other in note.message
    with slides.open_slide(path) as slide:
        assert (slide.region(0, 0, 160, 120, out_px=(80, 60)) == 50).all()
        assert (slide.region(0, 0, 160, 120, out_px=(40, 30)) == 90).all()


def test_a_pyramid_in_subifds_and_one_without_marks(tmp_path: Path) -> None:
    half = np.full((60, 80, 3), 50, np.uint8)
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(SMALL, subifds=1, subfiletype=1, metadata=None, **TILED)  # as in DNG
        tiff.write(SCAN, metadata=None, **TILED)
    np.testing.assert_array_equal(whole(path)[0], SCAN)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(SCAN, subifds=1, metadata=None, **TILED)
        tiff.write(half, metadata=None, **TILED)  # not marked, but a smaller copy in a SubIFD
    found, notes = whole(path)
    np.testing.assert_array_equal(found, SCAN)
    assert notes == ()
    with slides.open_slide(path) as slide:
        assert (slide.overview(max_px=80)[0] == 50).all()
    # Behind the picture, it may be another one: the largest is read, and that is said.
    found, (note,) = whole(pages(path, (half, {}), (SCAN, {})))
    np.testing.assert_array_equal(found, SCAN)
    assert note.severity == "warning"


QPTIFF = "<PerkinElmer-QPI-ImageDescription><ImageType>{}</ImageType>{}"


def qptiff(kind: str, name: str = "") -> dict[str, Any]:
    named = f"<Name>{name}</Name>" if name else ""
    text = QPTIFF.format(kind, named) + "</PerkinElmer-QPI-ImageDescription>"
    return {"description": text, "software": "PerkinElmer-QPI"}


def test_a_qptiff_in_colour_is_read(tmp_path: Path) -> None:
    path = pages(
        tmp_path / "a.qptiff",
        (SCAN, qptiff("FullResolution")),
        (SMALL, qptiff("Thumbnail")),
        (np.full((60, 80, 3), 50, np.uint8), {**qptiff("ReducedResolution"), "subfiletype": 1}),
        (picture(90, 200, seed=4), qptiff("Overview")),
        (picture(80, 80, seed=3), qptiff("Label")),
    )
    found, (note,) = whole(path)
    np.testing.assert_array_equal(found, SCAN)
    assert note.severity == "note"
    with slides.open_slide(path) as slide:
        assert (slide.overview(max_px=80)[0] == 50).all()


def test_a_qptiff_of_channels_is_refused_with_their_names(tmp_path: Path) -> None:
    channels = [
        (picture(64, 64, channels=1, seed=i)[..., 0], {**qptiff("FullResolution", name), **grey})
        for i, name in enumerate(("DAPI", "Opal 520", "Opal 690"))
        for grey in ({"photometric": "minisblack"},)
    ]
    path = pages(tmp_path / "a.qptiff", *channels)
    with pytest.raises(InputError, match=r"is not H&E.*'DAPI', 'Opal 520', 'Opal 690'"):
        slides.open_slide(path)


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (None, (0, 1, 2)),
        (("Channel 0", "Channel 1", "Channel 2"), (0, 1, 2)),
        (("Red", "Green", "Blue"), (0, 1, 2)),
        (("B", "G", "R"), (2, 1, 0)),
    ],
)
def test_three_channels_are_colours_by_name_or_without_one(
    tmp_path: Path, names: tuple[str, ...] | None, order: tuple[int, ...]
) -> None:
    metadata = {"axes": "CYX"} | ({} if names is None else {"Channel": {"Name": list(names)}})
    path = ome(tmp_path / "a.ome.tif", (np.moveaxis(SCAN, 2, 0), metadata))
    found, notes = whole(path)
    np.testing.assert_array_equal(found, SCAN[..., list(order)])
    assert "taken as red, green and blue" in notes[0].message


def test_a_resolution_of_fewer_channels_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    grey = np.zeros((60, 80), np.uint8)
    pages(path, (SCAN, {}), (grey, {"photometric": "minisblack", "subfiletype": 1}))
    with slides.open_slide(path) as slide:
        assert (slide.overview(max_px=80)[0] > 0).any()


@pytest.mark.parametrize("names", [("DAPI", "CD8", "PanCK"), ("DAPI", "CD8", "PanCK", "AF")])
def test_channels_of_markers_are_refused_with_their_names(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    stack = picture(64, 64, channels=len(names))
    metadata = {"axes": "CYX", "Channel": {"Name": list(names)}}
    path = ome(tmp_path / "a.ome.tif", (np.moveaxis(stack, 2, 0), metadata))
    for function in (slides.open_slide, slides.image_size, slides.stated_mpp):
        with pytest.raises(InputError, match=r"is not H&E.*'DAPI', 'CD8', 'PanCK'"):
            function(path)


@pytest.mark.parametrize(
    ("axes", "shape", "message"),
    [
        ("ZYX", (4, 40, 50), "4 focal planes"),
        ("TYX", (4, 40, 50), "4 time points"),
        ("ZYXS", (4, 40, 50, 3), "4 focal planes"),
        ("ZCYX", (2, 3, 40, 50), "2 focal planes"),
        ("CYX", (2, 40, 50), "it has 2 channels"),
        ("CYXS", (3, 40, 50, 3), "it has 3 channels"),
        ("CYX", (4, 40, 50), "it has 4 channels"),
    ],
)
@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_stacks_and_channels_are_refused_by_name(
    tmp_path: Path, kind: str, axes: str, shape: tuple[int, ...], message: str
) -> None:
    stack = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    colour = "rgb" if axes.endswith("S") else "minisblack"
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack, photometric=colour, metadata={"axes": axes}, **{kind: True})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        slides.open_slide(path)


def test_three_channels_of_imagej_are_colours_unless_they_are_called_otherwise(
    tmp_path: Path,
) -> None:
    path, planes = tmp_path / "a.tif", np.moveaxis(SCAN, 2, 0)
    tifffile.imwrite(path, planes, imagej=True, metadata={"axes": "CYX"})
    np.testing.assert_array_equal(whole(path)[0], SCAN)
    labels = {"axes": "CYX", "Labels": ["DAPI", "GFP", "TRITC"]}
    tifffile.imwrite(path, planes, imagej=True, metadata=labels)
    with pytest.raises(InputError, match=r"is not H&E: its channels are 'DAPI', 'GFP', 'TRITC'"):
        slides.open_slide(path)


def test_a_tiff_without_a_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0\x08\0\0\0")
    with pytest.raises(InputError, match="holds no picture"):
        slides.open_slide(tmp_path / "a.tif")


def test_pages_of_one_size_are_refused(tmp_path: Path) -> None:
    path = pages(tmp_path / "a.tif", (SCAN, {}), (SCAN, {}), (SMALL, {}))
    with pytest.raises(InputError, match="2 pages of one size"):
        slides.open_slide(path)


def test_one_file_of_several_of_an_ome_tiff_is_refused(tmp_path: Path) -> None:
    path = ome(tmp_path / "a.ome.tif", (SCAN, {"axes": "YXS"}))
    ome(tmp_path / "b.ome.tif", (SCAN, {"axes": "YXS"}))
    with tifffile.TiffFile(tmp_path / "b.ome.tif") as tiff:
        uuid = tiff.ome_metadata.split('UUID="')[1].split('"')[0] if tiff.ome_metadata else ""
    with tifffile.TiffFile(path, mode="r+") as tiff:
        text = str(tiff.ome_metadata)
        data = f'<TiffData><UUID FileName="b.ome.tif">{uuid}</UUID></TiffData>'
        start, end = text.index("<TiffData"), text.rindex("/>", 0, text.index("</Pixels")) + 2
        tiff.pages[0].tags["ImageDescription"].overwrite(text[:start] + data + text[end:])  # type: ignore[union-attr]
    with pytest.raises(InputError, match=r"a\.ome\.tif'.*(lie in others|are missing)"):
        slides.open_slide(path)


@pytest.mark.parametrize(
    ("unit", "per_unit", "mpp"),
    [
        ("micron", 2.0, 0.5),
        ("um", 2.0, 0.5),
        ("\\u00B5m", 2.0, 0.5),
        ("mm", 2000.0, 0.5),
        ("nm", 0.002, 0.5),
        ("pixel", 1.0, None),
        ("inch", 72.0, None),
        ("cm", 118.0, None),
    ],
)
def test_imagej_states_its_scale_in_many_units(
    tmp_path: Path, unit: str, per_unit: float, mpp: float | None
) -> None:
    path = tmp_path / "a.tif"
    scale: dict[str, Any] = {"resolution": (per_unit, per_unit), "metadata": {"unit": unit}}
    tifffile.imwrite(path, SCAN, imagej=True, **scale)
    assert slides.stated_mpp(path) == (None if mpp is None else pytest.approx(mpp))


@pytest.mark.parametrize(
    "suffix", [".btf", ".BTF", ".qptiff", ".tf8", ".tif8", ".ome.btf", ".TIFF"]
)
def test_a_tiff_goes_by_many_names(tmp_path: Path, suffix: str) -> None:
    path = pages(tmp_path / f"a{suffix}", (SCAN, {}), bigtiff=True)
    np.testing.assert_array_equal(whole(path)[0], SCAN)
    assert path.suffix.lower() in slides.SUFFIXES
