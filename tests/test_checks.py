"""What `check` finds in a section, whatever its reader: each finding alone, none on sound data."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy import sparse

from histospace_tf.checks import overlay, sections
from histospace_tf.cohort import genes as cohort_genes
from histospace_tf.data_pipelines import readers
from histospace_tf.data_pipelines.slides import image_checks
from histospace_tf.data_pipelines.slides.image_checks import Thumbnail
from histospace_tf.data_pipelines.spots import platforms, scale, tissue_overlap
from histospace_tf.vocabulary import Cohort, InputError, Problem, Section
from made.pictures import read_picture
from made.tissue import spot_table, write_picture

SIZE_PX = (600, 400)  # of the image; tissue is an upright rectangle left of the middle
LEFT, TOP, RIGHT, BOTTOM = 60, 60, 260, 380


def picture() -> np.ndarray:
    """Glass with a rectangle of textured pink tissue."""
    rng = np.random.default_rng(0)
    width, height = SIZE_PX
    made = np.clip(235 + rng.normal(0, 1, (height, width, 3)), 0, 255)
    blobs = cv2.resize(rng.random((40, 25)), (RIGHT - LEFT, BOTTOM - TOP))[..., None]
    made[TOP:BOTTOM, LEFT:RIGHT] = np.array([225, 150, 195]) - 120 * blobs * [1, 0.9, 0.5]
    return made.astype(np.uint8)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_picture(tmp_path / "he.png", picture())


def sound(image: Path | None, **changes: Any) -> Section:
    """8 x 13 Visium-like spots of 55 um, 100 um apart, at 4 um a pixel, all on tissue."""
    centres = np.array(
        [(LEFT + 12 + 25.0 * x, TOP + 12 + 25.0 * y) for y in range(12) for x in range(8)]
    )
    table = spot_table(centres)
    section = Section("S", "P", image, table, mpp=4.0, spot_diameter_um=55.0, spot_pitch_um=100.0)
    return dataclasses.replace(section, **changes)


def at(section: Section, centres: np.ndarray) -> Section:
    return dataclasses.replace(
        section, spots=dataclasses.replace(section.spots, centres_px=np.asarray(centres, float))
    )


def with_counts(section: Section, counts: np.ndarray) -> Section:
    table = sparse.csr_matrix(counts.astype(np.float32))
    return dataclasses.replace(section, spots=dataclasses.replace(section.spots, counts=table))


def with_genes(section: Section, *genes: str) -> Section:
    return dataclasses.replace(section, spots=dataclasses.replace(section.spots, genes=genes))


def found(section: Section, thumbnail: Thumbnail | None = None) -> list[Problem]:
    """What is said of a section that a reader gave."""
    if thumbnail is None and section.image is not None:
        thumbnail = image_checks.read_thumbnail(section.image)
    names, centres = section.spots.names, section.spots.centres_px
    kept, off = tissue_overlap.on_image("section S", names, centres, thumbnail)
    problems = [*sections.counts_problems(Cohort(Path("data"), "made", (section,))), *off]
    if not any(problem.severity == "error" for problem in off):
        on = dataclasses.replace(section, spots=section.spots.subset(kept))
        problems += tissue_overlap.section_placement(on, thumbnail)
    return problems


def only(section: Section) -> Problem:
    (problem,) = found(section)
    return problem


def test_a_sound_section_has_no_finding(image: Path) -> None:
    assert found(sound(image)) == []
    assert found(sound(None)) == []
    assert cohort_genes.gene_problems([sound(image)]) == []
    assert set(overlay.spot_statuses(sound(None), None)) == {"sound"}


def test_coordinates_that_fit_the_image_only_when_exchanged_are_reported(image: Path) -> None:
    section = sound(image)
    turned = (section.spots.centres_px + np.array([200, 0]))[:, ::-1]  # off the image's lower edge
    problem = only(at(section, turned))
    assert problem.severity == "error"
    assert "x and y look swapped" in problem.message
    assert "none would with x and y exchanged" in problem.message


def test_x_and_y_exchanged_inside_the_image_is_an_error_that_says_so(tmp_path: Path) -> None:
    square = np.full((600, 600, 3), 235, np.uint8)
    square[:400] = picture()
    section = sound(write_picture(tmp_path / "square.png", square))
    # The lower half of the tissue alone, so that exchanged spots leave it.
    lower = section.spots.subset(section.spots.centres_px[:, 1] > 270)
    section = dataclasses.replace(section, spots=lower)
    assert found(section) == []
    problem = only(at(section, lower.centres_px[:, ::-1]))
    assert problem.severity == "error"
    assert "x and y look swapped" in problem.message
    assert "with x and y exchanged 100% would lie on it" in problem.message


@pytest.fixture(scope="module")
def her2st(test_data: Path) -> list[tuple[Section, Thumbnail]]:
    """HER2ST's sections with an image, and looks at those."""
    sections = readers.read_cohort(test_data / "her2st").sections
    return [(s, image_checks.read_thumbnail(s.image)) for s in sections if s.image is not None]


@pytest.mark.parametrize(
    ("turned", "words"),
    [
        (lambda xy, size: xy[:, ::-1], "with x and y exchanged"),
        (lambda xy, size: [size[0] - 1, 0] - xy * [1, -1], "with x counted from the right"),
        (lambda xy, size: [0, size[1] - 1] - xy * [-1, 1], "with y counted from the bottom"),
        (lambda xy, size: np.subtract(size, 1) - xy, "from the lower right corner"),
    ],
    ids=["exchanged", "x", "y", "both"],
)
def test_her2st_turned_in_any_way_is_reported(
    her2st: list[tuple[Section, Thumbnail]], turned: Any, words: str
) -> None:
    """C2 exchanged has 83 % of its spots on tissue still, C6 mirrored 80 %."""
    for section, thumbnail in her2st:
        odd = at(section, turned(section.spots.centres_px, thumbnail.size_px))
        told = found(odd, thumbnail)
        assert any(words in problem.message for problem in told), section.name


def test_her2st_as_it_is_looks_neither_swapped_nor_mirrored(
    her2st: list[tuple[Section, Thumbnail]],
) -> None:
    for section, thumbnail in her2st:
        told = found(section, thumbnail)
        assert not any(re.search("swapped|mirrored", problem.message) for problem in told)


def test_mirrored_coordinates_are_recognised_by_the_tissue(image: Path) -> None:
    section = sound(image)
    problem = only(at(section, [SIZE_PX[0] - 1, 0] - section.spots.centres_px * [1, -1]))
    assert "mirrored" in problem.message
    assert "x counted from the right" in problem.message


def test_spots_off_the_tissue_are_counted(image: Path) -> None:
    section = sound(image)
    away = section.spots.centres_px.copy()
    away[:40] += [300, 0]
    message = only(at(section, away)).message
    assert message.startswith("40 of 96 spots (first: 's0') lie off the tissue")


def test_coordinates_of_a_smaller_copy_are_reported(image: Path) -> None:
    section = sound(image)
    shrunk = at(section, section.spots.centres_px * 0.2)
    (pitch, place) = found(shrunk)
    assert "are printed" in pitch.message  # 5 px apart would be 20 um
    assert place.severity == "warning"
    assert "within 8% of the image's width" in place.message
    assert "tissue_hires_scalef" in place.advice
    # Where the image file states its scale, there is no doubt.
    thumbnail = dataclasses.replace(image_checks.read_thumbnail(image), stated_mpp=4.0)
    severities = [p.severity for p in found(shrunk, thumbnail)]
    assert severities == ["warning", "error"]


def test_a_smaller_copy_instead_of_the_image_is_reported(image: Path) -> None:
    section = sound(image)
    place = only(at(section, section.spots.centres_px * 8))
    assert place.severity == "error"
    assert "coordinates reach 6.9 times its size" in place.message
    assert "smaller copy" in place.advice


def test_few_spots_off_the_image_are_left_out_and_more_are_an_error(image: Path) -> None:
    section = sound(image)
    centres = section.spots.centres_px.copy()
    centres[7] = [5000, 90]
    centres[9] = [np.inf, 90]
    thumbnail = image_checks.read_thumbnail(image)
    kept, (unplaced, off) = tissue_overlap.on_image("s", section.spots.names, centres, thumbnail)
    np.testing.assert_array_equal(np.flatnonzero(~kept), [7, 9])
    assert (unplaced.severity, off.severity) == ("warning", "warning")
    assert "1 of 96 spots have no place ('s9')" in unplaced.message
    assert "1 of 95 spots lie outside the 600 x 400 px image ('s7'; first: 's7'" in off.message
    for most, severity in ((9, "warning"), (10, "error")):
        moved = section.spots.centres_px.copy()
        moved[:most, 0] = -30
        _, (off,) = tissue_overlap.on_image("s", section.spots.names, moved, thumbnail)
        assert off.severity == severity
        unplaced_xy = section.spots.centres_px.copy()
        unplaced_xy[:most] = np.nan
        _, (lost,) = tissue_overlap.on_image("s", section.spots.names, unplaced_xy, None)
        assert lost.severity == severity


def test_one_spot_far_from_all_others_is_named_and_bends_nothing_else(image: Path) -> None:
    section = sound(image)
    centres = section.spots.centres_px.copy()
    centres[7] = [590, 390]
    message = only(at(section, centres)).message
    assert "1 of 96 spots stand far from all others ('s7 at x 590, y 390')" in message


def test_a_scale_that_does_not_fit_the_spots_is_reported(image: Path) -> None:
    message = only(sound(image, mpp=0.5)).message
    assert "25 px apart, 12.5 um at 0.5 microns per pixel; 100 um are printed" in message


@pytest.mark.parametrize(
    ("stated", "taken", "severities"),
    [
        ([(None, "a"), (0.5, "b"), (0.7, "c")], 0.5, ["note", "warning"]),
        ([(0.5, "a"), (0.54, "b"), (0.46, "c")], 0.5, ["note"]),
        ([(0.5, "a"), (1.0, "b")], 0.5, ["note", "error"]),
        ([(None, "a"), (None, "b")], None, ["warning"]),
    ],
)
def test_the_first_scale_stated_is_taken_and_others_are_held_against_it(
    stated: list[tuple[float | None, str]], taken: float | None, severities: list[str]
) -> None:
    mpp, problems = scale.chosen_scale("s", [scale.StatedScale(*each) for each in stated])
    assert mpp == taken
    assert [problem.severity for problem in problems] == severities


def test_the_users_scale_settles_a_contradiction_and_a_nominal_one_is_none() -> None:
    given = scale.StatedScale(0.5, "as given", settles=True)
    problems = scale.chosen_scale("s", [given, scale.StatedScale(2, "b")])[1]
    assert [p.severity for p in problems] == ["note", "warning"]
    nominal = scale.StatedScale(4.06, "from a diameter", within=0.25, is_firm=False)
    problems = scale.chosen_scale("s", [scale.StatedScale(0.5, "b"), nominal])[1]
    assert [p.severity for p in problems] == ["note", "warning"]


def test_a_spot_size_of_no_platform_is_reported(image: Path) -> None:
    message = only(sound(image, spot_diameter_um=20.0)).message
    assert "a spot of 5 px (20 um) among spots 25 px apart fits no known platform" in message
    for platform in platforms.PLATFORMS:
        pitch_um = platform.pitch_um
        fits = sound(
            image,
            spot_diameter_um=platform.spot_um,
            spot_pitch_um=pitch_um,
            mpp=pitch_um / 25,
        )
        assert found(fits) == []


def test_spots_without_counts_and_with_few(image: Path) -> None:
    section = sound(image)
    counts = section.spots.counts.toarray() * 100
    counts[3] = 0
    problem = only(with_counts(section, counts))
    assert problem.severity == "error"
    assert "1 of 96 spots have zero counts in all genes ('s3')" in problem.message
    counts[3, 0] = 2
    problem = only(with_counts(section, counts))
    assert problem.severity == "note"
    assert "1 of 96 spots have very few counts ('s3: 2'" in problem.message
    counts[:20] = 0
    counts[:20, 0] = 2
    assert only(with_counts(section, counts)).severity == "warning"


def test_spots_on_one_another_are_refused(image: Path) -> None:
    section = sound(image)
    problem = found(at(section, np.full_like(section.spots.centres_px, 150)))[0]
    assert (problem.severity, problem.message) == ("error", "most spots stand on one another.")


@pytest.mark.parametrize(
    ("change", "severity", "words"),
    [
        (lambda p: np.repeat(p.mean(axis=2, keepdims=True), 3, axis=2), "warning", "is grey"),
        (
            lambda p: np.where(p.mean(axis=2, keepdims=True) > 170, 255.0, 0.0).repeat(3, axis=2),
            "warning",
            "black and white",
        ),
        (lambda p: p[..., [0, 2, 1]], "warning", "not coloured like H&E"),
        (lambda p: p * 0, "error", "is black"),
        (lambda p: p * 0 + 255, "error", "no tissue found"),
        (lambda p: p * 0.5, "note", "is dark"),
    ],
)
def test_pictures_that_are_no_h_and_e(
    tmp_path: Path, change: Any, severity: str, words: str
) -> None:
    path = write_picture(tmp_path / "odd.png", change(picture().astype(float)).astype(np.uint8))
    thumbnail = image_checks.read_thumbnail(path)
    problem = image_checks.picture_problems("odd", path.name, thumbnail.overview, thumbnail.tissue)[
        0
    ]
    assert problem.severity == severity
    assert words in problem.message


def test_an_overview_has_format_size_and_scale(image: Path) -> None:
    thumbnail = image_checks.read_thumbnail(image)
    assert (thumbnail.kind, thumbnail.size_px, thumbnail.levels, thumbnail.stated_mpp) == (
        "png",
        SIZE_PX,
        1,
        None,
    )
    area = (RIGHT - LEFT) * (BOTTOM - TOP) / np.prod(SIZE_PX)
    assert thumbnail.tissue.mean() == pytest.approx(area, abs=0.03)
    points = np.array([[150, 200], [150, 390], [-1, 200], [599.4, 1]])
    np.testing.assert_array_equal(thumbnail.on_tissue(points), [True, False, False, False])
    with pytest.raises(InputError, match="does not exist"):
        image_checks.read_thumbnail(image.with_name("gone.png"))


def test_ensembl_ids_in_one_section_and_symbols_in_another_are_an_error() -> None:
    first = sound(None)
    other = with_genes(sound(None, name="T"), "ENSG00000141736", "ENSG00000087460", "ENSG3", "X")
    assert cohort_genes.mixed_kinds([first, first]) is None
    assert cohort_genes.mixed_kinds([first, other]) is None  # half is not most
    other = with_genes(other, "ENSG00000141736", "ENSG00000087460", "ENSG00000075624.17", "X")
    problem = cohort_genes.mixed_kinds([first, other])
    assert problem is not None
    assert problem.severity == "error"
    assert "section 'T' names them by Ensembl ids, section 'S' by symbols" in problem.message
    assert cohort_genes.gene_problems([first, other]) == [problem]
    assert cohort_genes.gene_problems([]) == []


@pytest.mark.parametrize(
    ("genes", "severity", "words"),
    [
        (("ERBB2", "ENSG00000141736", "GNAS", "ACTB"), "warning", "stand under two names"),
        (("ERBB2", "1-Mar", "GNAS", "ACTB"), "warning", r"are dates \('1-Mar'\)"),
        (("0", "1", "2", "3"), "warning", "are numbers"),
    ],
)
def test_gene_names_that_are_not_right(genes: tuple[str, ...], severity: str, words: str) -> None:
    (problem,) = cohort_genes.gene_problems([with_genes(sound(None), *genes)])
    assert problem.severity == severity
    assert re.search(words, problem.message)


def test_sections_that_write_a_gene_in_two_ways_are_reported() -> None:
    first = with_genes(sound(None), "ERBB2", "GNAS", "ACTB", "SEPT2")
    other = with_genes(sound(None, name="T"), "ERBB2", "GNAS", "ACTB", "SEPTIN2")
    (problem,) = cohort_genes.gene_problems([first, other])
    assert problem.where == "section T"
    assert "'SEPT2 and SEPTIN2'" in problem.message


def test_an_overlay_shows_every_status_and_the_whole_image(image: Path, tmp_path: Path) -> None:
    section = sound(image)
    centres = section.spots.centres_px.copy()
    centres[0] = [590, 390]
    centres[1] = [330, 150]
    centres[2] = [-90, 100]
    counts = section.spots.counts.toarray() * 100
    counts[50] = [1, 0, 0, 0]
    odd = with_counts(at(section, centres), counts)
    statuses = overlay.spot_statuses(odd, image_checks.read_thumbnail(image))
    assert list(statuses[[0, 1, 2, 3, 50]]) == [
        "far from all others",
        "off tissue",
        "off the image",
        "sound",
        "few counts",
    ]
    path = overlay.write_overlay(odd, image_checks.read_thumbnail(image), tmp_path / "drawn")
    assert path == tmp_path / "drawn" / "S.png"
    shown = read_picture(path)
    assert min(shown.shape[:2]) > 300
    # Okabe and Ito's orange and vermillion.
    for colour in ((230, 159, 0), (213, 94, 0)):
        assert (np.abs(shown.astype(int) - colour).max(axis=2) < 12).any(), colour


def test_real_sections_have_no_finding_but_spots_with_few_counts(test_data: Path) -> None:
    cohort = readers.read_cohort(test_data / "her2st")
    problems = [p for section in cohort.sections[:3] for p in found(section)]
    assert {p.severity for p in problems} == {"note"}
    assert all("very few counts" in p.message for p in problems)
    assert cohort_genes.gene_problems(cohort.sections) == []


def test_simulated_sections_have_no_finding(small_tissue: Path) -> None:
    cohort = readers.read_cohort(small_tissue)
    assert [p for section in cohort.sections for p in found(section)] == []
    assert cohort_genes.gene_problems(cohort.sections) == []


def test_sections_with_ids_are_compared_by_ids_and_not_by_names() -> None:
    # Two of them are called TBCE.
    ids = ("ENSG00000284770", "ENSG00000285053", "ENSG00000087460", "ENSG00000075624")
    first = with_genes(sound(None), *ids)
    other = dataclasses.replace(with_genes(sound(None), *ids[:2], "GNAS", "ACTB"), name="other")
    assert cohort_genes.mixed_kinds([first, with_genes(sound(None), *"ABCD")]) is not None
    both = [
        dataclasses.replace(one, spots=dataclasses.replace(one.spots, gene_ids=ids))
        for one in (first, other)
    ]
    assert cohort_genes.mixed_kinds(both) is None
    assert cohort_genes.gene_problems(both) == []


def test_genes_that_a_section_does_not_measure_are_left_out_of_all(tmp_path: Path) -> None:
    first = with_genes(sound(None), "ERBB2", "GNAS", "ACTB", "CD74")
    other = dataclasses.replace(
        with_genes(sound(None), "FASN", "ACTB", "GNAS", "KRT8"), name="other"
    )
    cohort = Cohort(tmp_path, "h5ad", (first, other))
    shared, problem = cohort_genes.on_shared_genes(cohort)
    assert problem is not None
    assert problem.severity == "warning"
    assert "4 of 6 genes ('CD74', 'ERBB2', 'FASN' and 1 more) are not in every section's" in str(
        problem
    )
    assert [s.spots.genes for s in shared.sections] == [("GNAS", "ACTB"), ("ACTB", "GNAS")]
    np.testing.assert_array_equal(
        shared.sections[0].spots.counts.toarray(), first.spots.counts.toarray()[:, 1:3]
    )
    legacy = dataclasses.replace(cohort, absent_is_zero=True)
    assert cohort_genes.on_shared_genes(legacy) == (legacy, None)
    alone = Cohort(tmp_path, "h5ad", (first,))
    assert cohort_genes.on_shared_genes(alone) == (alone, None)
    none = dataclasses.replace(with_genes(sound(None), "A", "B", "C", "D"), name="none")
    _, problem = cohort_genes.on_shared_genes(Cohort(tmp_path, "h5ad", (first, none)))
    assert problem is not None
    assert problem.severity == "error"
