"""The report: what stands in it, what it survives, and how it behaves in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from histospace_tf import outputs, reporting, runs
from histospace_tf.reports import (
    data,
    findings,
    gene_maps,
    parts,
    viewer,
)
from histospace_tf.reports.page import DASH, number
from histospace_tf.vocabulary import InputError
from made import chromium
from made.evaluations import (
    GENES,
    HOSTILE,
    SECTIONS,
    SIDE,
    ridge_history,
    row,
    scores,
    section,
    write_folder,
)
from made.pictures import overview_at
from made.tissue import he_picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = write_folder(tmp_path_factory.mktemp("report") / "evaluation")
    assert reporting.render(made) == made / "report.html"
    return made


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[chromium.Page]:
    program = chromium.command()
    if program is None:
        pytest.skip("Chromium is absent: no chromium on the path, none in HISTOSPACE_CHROMIUM")
    with chromium.browser(program) as tab:
        tab.resize(1280, 900)
        tab.open(folder / "report.html")
        yield tab


def test_browser_draws_every_figure_without_an_error_or_an_outside_request(
    page: chromium.Page, folder: Path
) -> None:
    drawn = page.run("[...document.images].map(i => i.complete ? i.naturalWidth : 0)")
    figures = list((folder / "figures").glob("*.png"))
    assert len(drawn) == len(figures) + 1  # the stain panel was there before
    assert min(drawn) > 0
    assert page.errors == []
    outside = [url for url in page.requests if not url.startswith(("data:", "file:"))]
    assert outside == []
    assert {url for url in page.requests if url.startswith("file:")} == {
        (folder / "report.html").as_uri()
    }


def colours_in(page: chromium.Page, canvas: str) -> int:
    return int(
        page.run(
            f"(() => {{ const c = document.getElementById('{canvas}');"
            "const d = new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height)"
            ".data.buffer); return new Set(d).size; })()"
        )
    )


def picture_of(page: chromium.Page, canvas: str) -> str:
    return str(page.run(f"document.getElementById('{canvas}').toDataURL()"))


def choose(page: chromium.Page, control: str, value: object, event: str = "change") -> None:
    page.run(
        f"(() => {{ const c = document.getElementById('{control}'); c.value = '{value}';"
        f"c.dispatchEvent(new Event('{event}')); }})()"
    )


def test_viewer_follows_section_gene_scale_and_fading(page: chromium.Page) -> None:
    before = picture_of(page, "map-predicted")
    assert colours_in(page, "map-predicted") > 20
    for control, value, event in (
        ("pick-gene", 4, "change"),
        ("pick-scale", "gene", "change"),
        ("fade", 20, "input"),
    ):
        choose(page, control, value, event)
        after = picture_of(page, "map-predicted")
        assert after != before, control
        before = after
    choose(page, "pick-section", 1)
    words = page.run("document.getElementById('viewer-state').textContent")
    assert SECTIONS[1] in words
    assert "20 %" in words
    choose(page, "fade", 0, "input")
    # Nothing but the H&E is left: both maps show the same, but for the scale bar on the first.
    corner = "[...document.getElementById('{}').getContext('2d').getImageData(0, 0, 200, 200).data]"
    assert page.run(corner.format("map-measured")) == page.run(corner.format("map-predicted"))
    choose(page, "fade", 90, "input")
    choose(page, "pick-scale", "own")


def test_viewer_says_where_a_gene_was_not_predicted(page: chromium.Page) -> None:
    choose(page, "pick-section", 1)
    choose(
        page,
        "pick-gene",
        page.run(
            "JSON.parse(document.getElementById('viewer-data').textContent)"
            ".genes.findIndex(g => g.name === 'ERBB2')"
        ),
    )
    assert "not predicted" in page.run("document.getElementById('viewer-state').textContent")
    choose(page, "pick-section", 0)


def test_keyboard_alone_moves_the_viewer(page: chromium.Page) -> None:
    page.run("document.getElementById('fade').focus()")
    before = page.run("document.getElementById('fade').value")
    page.press("ArrowLeft", 37)
    assert float(page.run("document.getElementById('fade').value")) < float(before)
    gene = page.run("document.getElementById('pick-gene').value")
    page.run("document.getElementById('gene-after').focus()")
    page.call(
        "Input.dispatchKeyEvent",
        type="keyDown",
        key="Enter",
        text="\r",
        code="Enter",
        windowsVirtualKeyCode=13,
    )
    assert page.run("document.getElementById('pick-gene').value") != gene


def first_cells(page: chromium.Page) -> list[str]:
    return list(
        page.run(
            "[...document.querySelectorAll('#gene-table tbody tr:not(.hidden)')]"
            ".map(r => r.cells[0].textContent)"
        )
    )


def test_gene_table_sorts_and_filters(page: chromium.Page) -> None:
    assert first_cells(page) == list(GENES)  # best first, as made
    page.run("document.querySelectorAll('#gene-table thead button')[0].click()")
    assert first_cells(page)[-1] == "GNAS"
    # r: highest first, then lowest first
    page.run("document.querySelectorAll('#gene-table thead button')[2].click()")
    assert first_cells(page) == list(GENES)
    page.run("document.querySelectorAll('#gene-table thead button')[2].click()")
    assert first_cells(page) == list(GENES)[::-1]
    choose(page, "gene-filter", "erb", "input")
    assert first_cells(page) == ["ERBB2"]
    choose(page, "gene-filter", "", "input")
    page.run("document.querySelector('button.gene[data-place=\"1\"]').click()")
    assert page.run("document.getElementById('pick-gene').value") == "1"


def test_phone_cuts_nothing_off(page: chromium.Page) -> None:
    page.resize(390, 800, phone=True)
    assert page.run("document.documentElement.scrollWidth") <= 390
    page.run("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    # Whatever is wider than the window lies in something that scrolls.
    beyond = (
        "[...document.querySelectorAll('main *')].filter(e => {"
        "if (e.getBoundingClientRect().right <= innerWidth + 1) return false;"
        "for (let p = e.parentElement; p; p = p.parentElement)"
        "  if (getComputedStyle(p).overflowX !== 'visible') return false;"
        "return true; }).map(e => e.outerHTML.slice(0, 80))"
    )
    assert page.run(beyond) == []
    page.run("document.querySelectorAll('details').forEach(part => { part.open = false; })")
    page.resize(1280, 900)


def test_what_is_not_read_first_is_folded_and_printed_open(page: chromium.Page) -> None:
    folded = page.run(
        "[...document.querySelectorAll('details:not([open]) > summary')].map(s => s.textContent)"
    )
    assert {
        "How spots were held out", "Each section, and all spots pooled", "Stain normalisation",
        "Reconstructions", "Settings and versions",
        "Maps of clusters and counts, section by section",
    } <= set(folded)  # fmt: skip
    assert [words for words in folded if words.startswith("Distributions: GNAS, ERBB2, ")]
    shut = page.run("document.querySelectorAll('details:not([open])').length")
    page.run("window.dispatchEvent(new Event('beforeprint'))")
    assert page.run("document.querySelectorAll('details:not([open])').length") == 0
    page.run("window.dispatchEvent(new Event('afterprint'))")
    assert page.run("document.querySelectorAll('details:not([open])').length") == shut


def test_print_shows_the_viewer_and_hides_its_controls(page: chromium.Page) -> None:
    page.call("Emulation.setEmulatedMedia", media="print")
    shown = "getComputedStyle(document.querySelector('{}')).display"
    assert page.run(shown.format(".controls")) == "none"
    assert page.run(shown.format("#map-predicted")) != "none"
    assert page.pdf().startswith(b"%PDF")
    page.call("Emulation.setEmulatedMedia", media="")


def test_names_from_data_are_shown_and_never_become_html(page: chromium.Page, folder: Path) -> None:
    source = (folder / "report.html").read_text()
    assert "<b>&" not in source
    assert source.count("</script>") == 2
    assert "<i>" not in source
    assert HOSTILE in first_cells(page)
    assert page.run("document.querySelectorAll('main b, main i').length") == 0


@pytest.mark.slow
def test_page_holds_the_scores_the_split_and_the_footnote(folder: Path) -> None:
    source = (folder / "report.html").read_text()
    assert "No patient is on both sides" in source
    assert "0.321" in source
    assert "neighbour oracle *" in source
    assert "reads the held-out section" in source
    assert "Depth audit" in source
    assert "● yes" in source


@pytest.mark.slow
def test_every_figure_is_written_as_png_and_svg(folder: Path) -> None:
    names = {
        suffix: {p.stem for p in (folder / "figures").glob(f"*.{suffix}")}
        for suffix in ("png", "svg")
    }
    assert names["png"] == names["svg"]
    assert {
        "gene_r_by_section", "learning_autoencoders", "learning_encoder", "learning_complexities",
        "learning_heads", "strengths", "reconstructions", "genes_beside", "map_GNAS", "map_ERBB2",
        "clusters_A1", "groups_GNAS", "intervals",
    } <= names["png"]  # fmt: skip


def test_heads_in_closed_form_alone_have_no_curves_per_epoch(tmp_path: Path) -> None:
    # As of a run whose encoder was trained before.
    (tmp_path / "scores.json").write_text(json.dumps(scores()))
    runs.write_history(ridge_history(), tmp_path)
    source = reporting.render(tmp_path).read_text()
    drawn = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert "strengths" in drawn
    assert not [name for name in drawn if name.startswith("learning_")]
    assert "strength of the penalty" in source


def test_scores_alone_make_a_report(tmp_path: Path) -> None:
    made = scores()
    made["split"] |= {"held_out": ["A1"], "patient_on_both_sides": ["A"]}
    made["sections"] = {"A1": {**made["sections"]["A1"]}}
    (tmp_path / "scores.json").write_text(json.dumps(made))
    source = reporting.render(tmp_path).read_text()
    assert "Patient A is on both sides" in source
    assert re.findall(r'<section id="(\w+)"', source) == ["summary", "scores"]


def test_a_network_on_slides_that_a_ridge_beats_has_a_banner(tmp_path: Path) -> None:
    rows = {"model": row(0.1), "gene_mean": row(-0.3), "mean_feature_ridge": row(0.2)}
    rows["model"]["mse"] = 1.2
    entry = {"slides": 9, "patients": 6, "genes": 12, "learned": True, "rows": rows}
    split = {"outer": "patient", "held_out": [["A"], ["B"]]}
    made = {"sections": {}, "mean": {}, "split": split, "bulk": entry}
    (tmp_path / "scores.json").write_text(json.dumps(made))
    source = reporting.render(tmp_path).read_text()
    boxed = re.findall('<p class="warning">Warning: (.*?)</p>', source)
    assert [("gene mean" in words, "ridge" in words) for words in boxed] == [
        (True, False),
        (False, True),
    ]
    assert "9 slides of 6 patients" in source


def test_first_warnings_stand_open_and_the_others_fold(tmp_path: Path) -> None:
    made = scores()
    made["split"]["patient_on_both_sides"] = ["A"]
    for entry in made["sections"].values():
        entry["rows"] |= {
            name: {**entry["rows"][name], "spot_r": 0.1, "mse": 0.9}
            for name in ("model", "model_single_tile")
        }
    lines = findings.findings(made)
    assert len(lines) == 5
    _, _, source = parts.summary(data.Results(tmp_path, made), tmp_path)
    (box,) = re.findall('<div class="warning">(.*?)</div>', source)
    first, more = box.split("<details><summary>3 more</summary>")
    assert first.count("<p>") == parts.WARNED
    assert first.startswith("<p>Patient A is on both sides")
    assert more.count("<p>") == 3


@pytest.mark.slow
def test_rendering_again_replaces_what_stood_there(folder: Path, tmp_path: Path) -> None:
    for name in ("scores.json", "predictions.h5ad"):
        shutil.copy(folder / name, tmp_path / name)
    reporting.render(tmp_path, genes=["GENE1"])
    reporting.render(tmp_path, genes=["GENE2"])
    maps = [path.name for path in (tmp_path / "figures").glob("map_*.png")]
    assert maps == ["map_GENE2.png"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_default_genes_are_the_known_ones_then_the_five_best(folder: Path) -> None:
    shown = gene_maps.genes_to_show(data.read(folder))
    table = pd.read_csv(folder / "gene_scores.csv")
    best = table.groupby("gene")["model"].mean().sort_values(ascending=False).index
    assert shown == ["GNAS", "ERBB2", *[g for g in best if g not in ("GNAS", "ERBB2")][:5]]


def test_quantised_values_come_back_within_half_a_level() -> None:
    values = np.random.default_rng(0).uniform(-1, 5, (30, 2))
    values[3, 1] = np.nan
    genes = [{"min": -1.0, "max": 5.0}, {"min": -2.0, "max": 6.0}]
    levels = viewer.quantised(values, genes)
    assert levels.dtype == np.uint8
    assert levels.shape == (2, 30)
    assert levels[1, 3] == viewer.MISSING
    back = np.array([[g["min"]] for g in genes]) + levels / viewer.LEVELS * np.array(
        [[g["max"] - g["min"]] for g in genes]
    )
    error = np.abs(back - values.T) / np.array([[6.0], [8.0]])
    assert np.nanmax(np.where(levels == viewer.MISSING, np.nan, error)) <= 0.5 / 254 + 1e-9


def test_viewer_keeps_the_best_genes_where_all_are_too_many(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = data.read(folder)
    monkeypatch.setattr(viewer, "VALUE_BYTES", 2 * 5 * SIDE**2 * len(SECTIONS))
    shown = viewer.genes_shown(results, ["GNAS"])
    best = [g for g in data.mean_gene_r(results).index if g != "GNAS"][:4]
    assert shown[0] == "GNAS"
    assert sorted(shown[1:]) == sorted(best)


def test_overviews_are_small_pictures_with_their_scale(tmp_path: Path) -> None:
    image = tmp_path / "he.png"
    picture = he_picture()
    image.write_bytes(data.encoded(picture, ".png"))
    data.write_overviews([section("A/1", image), section("N", None)], tmp_path, overview_at(40))
    entries = json.loads((tmp_path / "overviews" / "overviews.json").read_text())
    assert list(entries) == ["A/1"]
    small = cv2.imread(str(tmp_path / "overviews" / entries["A/1"]["file"]))
    assert small is not None
    assert max(small.shape[:2]) == 40
    assert entries["A/1"]["px_per_overview_px"] == pytest.approx(max(picture.shape[:2]) / 40)
    assert entries["A/1"]["mpp"] == 5.0
    assert entries["A/1"]["spot_px"] == 12.0
    with pytest.raises(InputError, match="another one's overview"):
        data.write_overviews(
            [section("A/1", image), section("A:1", image)], tmp_path, overview_at(40)
        )


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("scores.json", None, "no scores.json"),
        ("scores.json", b"{", "no sound JSON"),
        ("scores.json", b"[]", "an object is needed"),
        ("scores.json", b"{}", "lacks its 'sections'"),
        ("gene_scores.csv", b"a,b\n1,2\n", "lacks column 'gene'"),
        ("history.csv", b"", "no sound table"),
        ("predictions.h5ad", b"no", "cannot be read as AnnData"),
        ("reconstructions.npz", b"no", "cannot be read"),
        ("stain_panel.png", b"no", "no picture"),
        ("overviews/overviews.json", b'{"Q": {"px_per_overview_px": 1}}', "section 'Q'"),
    ],
)
def test_damaged_files_are_refused_by_name(
    tmp_path: Path, file: str, content: bytes | None, message: str
) -> None:
    (tmp_path / "scores.json").write_text(json.dumps(scores()))
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)):
        reporting.render(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_unknown_genes_and_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'NOPE'"):
        reporting.render(folder, genes=["NOPE"])
    with pytest.raises(InputError, match="is no folder"):
        reporting.render(tmp_path / "absent")
    (tmp_path / "scores.json").write_text(json.dumps(scores()))
    with pytest.raises(InputError, match=r"no predictions\.h5ad"):
        reporting.render(tmp_path, genes=["GNAS"])


def test_numbers_and_gaps_in_tables() -> None:
    assert number(-0.25) == "\u22120.250"
    assert [number(v) for v in (None, float("nan"), True)] == [DASH] * 3
    assert outputs.file_name("../HLA-B/1") == "_HLA-B_1"


@pytest.mark.slow
def test_rendering_needs_no_tensorflow() -> None:
    code = (
        "import sys, histospace_tf.reporting; print({'tensorflow', 'keras', 'tensorflow_datasets'}"
        " & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout.strip() == "set()"
