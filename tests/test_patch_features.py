"""Other tools' patch features: read from their layouts, matched to spots, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy import sparse

from histospace_tf.data_pipelines import patch_features, patch_matching
from histospace_tf.data_pipelines.patch_features import read_file
from histospace_tf.vocabulary import InputError, Section, SpotTable
from made import patches

SIZE = (300, 260)
CORNERS = patches.grid(*SIZE)
VALUES = patches.values(len(CORNERS))


def spots(centres: Any, names: tuple[str, ...] = ()) -> SpotTable:
    centres = np.asarray(centres, float)
    names = names or tuple(f"s{i}" for i in range(len(centres)))
    return SpotTable(names, centres, sparse.csr_matrix(np.ones((len(centres), 1))), ("G",))


def section(name: str, image: str | None = None) -> Section:
    return Section(name, "P", None if image is None else Path(image), spots([[50, 50]]))


def plain(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_every_layout_gives_the_same_patches(tmp_path: Path) -> None:
    files = {
        "TRIDENT": patches.write_trident(tmp_path / "t.h5", CORNERS, VALUES),
        "TRIDENT, batched": patches.write_trident(tmp_path / "b.h5", CORNERS, VALUES[None]),
        "CLAM": patches.write_clam(tmp_path, "c", CORNERS, VALUES),
        "plain": plain(
            tmp_path / "p.npz", features=VALUES, coords=CORNERS, patch_size=patches.PATCH_PX
        ),
    }
    for layout, path in files.items():
        read = read_file(path)
        assert read.side_px == patches.PATCH_PX, layout
        np.testing.assert_array_equal(read.values, VALUES, err_msg=layout)
        # 40 px from 0 on are pixels 0 to 39.
        np.testing.assert_array_equal(read.centres_px, CORNERS + 19.5, err_msg=layout)
    hest = read_file(patches.write_hest(tmp_path / "h.h5", ["AA-1", "AB-1"], VALUES[:2]))
    assert hest.barcodes == ("AA-1", "AB-1")
    assert hest.centres_px is None


@pytest.mark.parametrize(
    ("attributes", "side"),
    [
        ({"patch_size": 256, "patch_size_level0": 512, "level0_magnification": 20}, 512),
        ({"patch_size": 256, "level0_magnification": 40, "target_magnification": 20}, 512),
        ({"patch_size": 256, "patch_level": 0}, 256),
        ({"patch_size": 256, "patch_level": 1, "downsample": (4.0, 4.0001)}, 1024),
        ({"patch_size": 256, "patch_level": 0, "custom_downsample": 2}, 512),
        ({"patch_size": 256, "patch_size_level0": "None", "patch_level": 0}, 256),
    ],
)
def test_side_of_a_patch_is_in_full_resolution_pixels(
    attributes: dict[str, Any], side: float
) -> None:
    assert patch_features.side_px(attributes, "it") == pytest.approx(side, rel=1e-4)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({}, "'patch_size_level0'"),
        ({"patch_size": 256}, "'downsample'"),
        ({"patch_size": 256, "patch_level": 2}, "'downsample'"),
        ({"patch_size": 256, "downsample": (4.0, 2.0)}, "attribute 'downsample'"),
        ({"patch_size_level0": "large"}, "attribute 'patch_size_level0' is 'large'"),
        ({"patch_size_level0": 0}, "patches of 0 px"),
    ],
)
def test_unknown_side_of_a_patch_is_refused_naming_the_attribute(
    attributes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError) as error:
        patch_features.side_px(attributes, "it")
    assert words in str(error.value)


def with_nan() -> np.ndarray:
    values = VALUES.copy()
    values[3, 2] = np.nan
    return values


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"features": with_nan(), "coords": CORNERS}, "1 of 56 patches (first: number 3)"),
        ({"features": VALUES[:0], "coords": CORNERS[:0]}, "hold no patch"),
        ({"features": VALUES[:9], "coords": CORNERS}, "9 patches and 'coords' of shape (56, 2)"),
        ({"features": VALUES[:, 0], "coords": CORNERS}, "not one vector for a slide"),
        ({"features": VALUES}, "neither 'coords' nor 'barcodes'"),
        ({"coords": CORNERS}, "no 'features' beside them"),
        ({"imgs": VALUES}, "it holds 'imgs'"),
        ({}, "it is empty"),
        ({"features": VALUES, "coords": CORNERS + np.inf}, "not finite numbers"),
        ({"features": VALUES, "coords": CORNERS // 80 * 80}, "again with other features"),
        ({"features": VALUES[:2], "barcodes": np.array([b"A", b"A"])}, "stand twice: 'A'"),
        ({"features": VALUES[:2], "barcodes": np.array([b"A"])}, "one each is needed"),
    ],
)
def test_bad_file_is_refused_by_name(
    tmp_path: Path, arrays: dict[str, np.ndarray], words: str
) -> None:
    path = patches.write_hdf5(tmp_path / "bad.h5", {"patch_size_level0": 40}, **arrays)
    with pytest.raises(InputError) as error:
        read_file(path)
    assert words in str(error.value)
    assert "bad.h5" in str(error.value)
    assert "\n" not in str(error.value)


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    for name in ("cut.h5", "cut.npz"):
        (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))
        with pytest.raises(InputError, match=f"{name}.*cannot be read"):
            read_file(tmp_path / name)


def test_patches_that_stand_twice_count_once(tmp_path: Path) -> None:
    path = patches.write_trident(
        tmp_path / "t.h5", np.concatenate([CORNERS, CORNERS[:5]]), np.r_[VALUES, VALUES[:5]]
    )
    read = read_file(path)
    assert read.twice == 5
    np.testing.assert_array_equal(read.values, VALUES)
    matched = patch_matching.match("C4", spots(CORNERS[:4] + 20), read)
    assert "5 stood there twice" in matched.line()


def test_spots_take_the_patch_that_they_lie_in(tmp_path: Path) -> None:
    path = patches.write_trident(tmp_path / "t.h5", CORNERS[CORNERS[:, 0] < 200], VALUES[:35])
    centres = [[1, 1], [39, 39], [41, 1], [100, 260], [250, 60]]
    matched = patch_matching.match("C4", spots(centres), read_file(path), image_px=SIZE)
    own = matched.patches.corners_px
    assert own is not None
    taken = own[matched.patch_of[:4]]
    np.testing.assert_array_equal(taken, [[0, 0], [0, 0], [40, 0], [80, 240]])
    assert matched.patch_of[4] == -1
    assert matched.line() == ("section C4: 35 patches of 40 px in t.h5, 1 of 5 spots lie in none")


def test_barcodes_are_matched_by_name(tmp_path: Path) -> None:
    path = patches.write_hest(tmp_path / "h.h5", ["c", "x", "a"], VALUES[:3])
    table = spots([[10, 10], [50, 10], [90, 10]], ("a", "b", "c"))
    matched = patch_matching.match("C4", table, read_file(path), image_px=SIZE)
    assert matched.patch_of.tolist() == [2, -1, 0]
    assert np.isnan(matched.centres_px[1]).all()
    assert matched.centres_px[0].tolist() == [90, 10]
    with pytest.raises(InputError, match=r"only 0 of 2 spots .* begin with 'c', 'x'"):
        patch_matching.match("C4", spots([[1, 1], [2, 2]]), read_file(path))


@pytest.mark.parametrize(
    ("scale", "attributes", "words"),
    [
        (4.0, {}, "of 56 patches lie outside the 300 x 260 px image (first: x 320, y 0)"),
        (0.25, {"patch_size_level0": 10}, "spots lie in one of its 56 patches of 10 px"),
        (1.0, {"level0_width": 900, "level0_height": 260}, "a slide of 900 x 260 px"),
    ],
)
def test_features_of_another_slide_or_scale_are_refused(
    tmp_path: Path, scale: float, attributes: dict[str, Any], words: str
) -> None:
    corners = (CORNERS * scale).astype(int)
    path = patches.write_trident(tmp_path / "t.h5", corners, VALUES, **attributes)
    with pytest.raises(InputError) as error:
        patch_matching.match("C4", spots(CORNERS + 20), read_file(path), image_px=SIZE)
    assert words in str(error.value)
    assert "t.h5" in str(error.value)


def test_a_slide_of_the_stated_size_is_taken(tmp_path: Path) -> None:
    path = patches.write_trident(
        tmp_path / "t.h5", CORNERS, VALUES, level0_width=300, level0_height=260
    )
    matched = patch_matching.match("C4", spots(CORNERS + 20), read_file(path), image_px=SIZE)
    assert matched.has_patch.all()
    assert matched.line().endswith("all 56 spots have one")


def test_files_are_named_as_sections_or_images_are(tmp_path: Path) -> None:
    for name in ("C1.h5", "slide_2.npz", "c3.h5", "GSM4.ome.h5", "other.h5"):
        (tmp_path / name).touch()
    sections = [
        section("C1", "a/HE.tif"),
        section("C2", "slide_2.ome.tif"),
        section("C3", "b/HE.tif"),
        section("C4", "GSM4.ome.tif"),
    ]
    files, others = patch_matching.files_of(tmp_path, sections)
    assert {name: path.name for name, path in files.items()} == {
        "C1": "C1.h5",
        "C2": "slide_2.npz",
        "C3": "c3.h5",
        "C4": "GSM4.ome.h5",
    }
    assert [path.name for path in others] == ["other.h5"]
    with pytest.raises(InputError, match=r"1 of 5 sections: 'C5'.* C5.h5.* no section: 'other.h5'"):
        patch_matching.files_of(tmp_path, [*sections, section("C5")])
    (tmp_path / "C1.npz").touch()
    with pytest.raises(InputError, match=r"2 files of features for section 'C1'"):
        patch_matching.files_of(tmp_path, sections)


def test_folder_without_features_says_where_they_may_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        patch_matching.listed(tmp_path / "none")
    with pytest.raises(InputError, match="one file per slide is needed"):
        patch_matching.listed(tmp_path)
    (tmp_path / "pt_files").mkdir()
    (tmp_path / "pt_files" / "C1.pt").touch()
    with pytest.raises(InputError, match="no coordinates"):
        patch_matching.listed(tmp_path)
    patches.write_trident(tmp_path / "features_uni" / "C1.h5", CORNERS, VALUES)
    with pytest.raises(InputError, match="features_uni"):
        patch_matching.listed(tmp_path)
    patches.write_clam(tmp_path, "C1", CORNERS, VALUES)
    assert patch_matching.listed(tmp_path) == [tmp_path / "h5_files" / "C1.h5"]


def test_clam_without_its_patches_is_refused_saying_where_they_belong(tmp_path: Path) -> None:
    path = patches.write_clam(tmp_path, "C1", CORNERS, VALUES)
    (tmp_path / "patches" / "C1.h5").unlink()
    with pytest.raises(InputError, match="put that folder beside h5_files"):
        read_file(path)


def test_files_of_other_encoders_or_magnifications_are_refused() -> None:
    first, other = Path("a.h5"), Path("b.h5")
    patch_matching.refuse_other_kinds({first: 6, other: 6}, {first: 128.0, other: 112.0})
    patch_matching.refuse_other_kinds({first: 6, other: 6}, {})  # of unknown scale
    with pytest.raises(InputError, match=r"'b.h5' has 4 for each patch, and 'a.h5' 6"):
        patch_matching.refuse_other_kinds({first: 6, other: 4}, {})
    with pytest.raises(InputError, match=r"'b.h5' has patches of 256 um, and 'a.h5' of 128 um"):
        patch_matching.refuse_other_kinds({first: 6, other: 6}, {first: 128.0, other: 256.0})


def test_half_precision_and_groups_of_a_file_are_read_as_they_are(tmp_path: Path) -> None:
    path = patches.write_trident(tmp_path / "t.h5", CORNERS, VALUES.astype(np.float16))
    with h5py.File(path, "a") as file:
        file.create_group("further")
    read = read_file(path)
    assert read.values.dtype == np.float32
    np.testing.assert_array_equal(read.values, VALUES.astype(np.float16))
