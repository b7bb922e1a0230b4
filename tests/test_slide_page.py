"""The page of a predicted slide: what is packed into it, and how it behaves in a real browser."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
import time
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import cv2
import matplotlib
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import histospace_tf
from histospace_tf import outputs
from histospace_tf.cli import main
from histospace_tf.reports import viewer
from histospace_tf.scores import gene_sets
from histospace_tf.slide_prediction import page_index, page_layers, slide_page
from histospace_tf.vocabulary import InputError
from made import chromium
from made.predictions import prediction, with_trust

HOSTILE = "</script><b>&\"'"
WARNING = f"image a.svs: pen marks on 12 % of the glass {HOSTILE}"


def slide(*, places: str = "grid") -> anndata.AnnData:
    """Six places with all that a page shows: trust, regions, a warning, a value that is missing."""
    table = with_trust(prediction(places=places, mpp=0.5))
    table.var_names = ["ERBB2", "GNAS", "ACTB", HOSTILE]
    table.var["symbol"] = ["ERBB2", "GNAS", "", "IGKC"]
    table.obs["region"] = pd.Categorical(["tumour", "tumour", "a, b", "a, b", None, "tumour"])
    table.uns["histospace_tf"] = {
        "model": "run",
        "date": "2026-11-30T00:00:00",
        "trust_from": "12 held-out spots",
        "warnings": f"{WARNING}\nout of focus",
        "trained_on_sections": np.array(["B1", "C2"]),
    }
    table.X[4, 0] = np.nan
    return table


def packed_in(path: Path) -> dict[str, Any]:
    """The data that a page holds."""
    source = path.read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="slide-data">(.*?)</script>', source)
    values: dict[str, Any] = json.loads(data)
    return values


def unpacked(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


@pytest.mark.parametrize(("fine_bytes", "kind", "levels"), [(10**6, "<u2", 65_534), (0, "u1", 254)])
def test_a_page_holds_every_value_and_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fine_bytes: int, kind: str, levels: int
) -> None:
    monkeypatch.setattr(slide_page, "FINE_BYTES", fine_bytes)
    table = slide()
    (path,) = slide_page.write_page(table, tmp_path / "a.html", genes=["ACTB"])
    data = packed_in(path)
    # Trusted first, then by r.
    assert [entry["key"] for entry in data["layers"]] == ["GNAS", HOSTILE, "ACTB", "ERBB2"]
    assert [entry["name"] for entry in data["layers"]][:2] == ["GNAS", f"IGKC ({HOSTILE})"]
    assert data["layers"][data["first"]]["key"] == "ACTB"
    for entry in data["layers"]:
        level = unpacked(entry["values"], kind)
        value = entry["min"] + level / levels * (entry["max"] - entry["min"])
        value[level == levels + 1] = np.nan
        expected = np.asarray(table[:, entry["key"]].X).ravel()
        step = (entry["max"] - entry["min"]) / levels
        np.testing.assert_allclose(value, expected, atol=step / 2 + 1e-9)
        assert entry["trust"] == table.var.loc[entry["key"], "trust"]
        assert entry["r"] == table.var.loc[entry["key"], "gene_r"]
    # From the picture's corner: half a pixel beside pixel centres.
    at = np.stack([unpacked(data[axis], "<f4") for axis in "xy"], axis=1)
    np.testing.assert_allclose(at * data["scale"] - 0.5, table.obsm["spatial"], atol=1e-3)
    assert data["regions"]["names"] == ["a, b", "tumour"]
    assert list(unpacked(data["regions"]["of"], "<u2")) == [1, 1, 0, 0, 2, 1]
    assert (data["mpp"], data["square"], data["place_px"]) == (0.5, True, 40.0)


def test_a_page_says_what_to_know_first_and_names_never_become_html(tmp_path: Path) -> None:
    (path,) = slide_page.write_page(slide(), tmp_path / "a.html", genes=[])
    source = path.read_text(encoding="utf-8")
    assert source.count("</script>") == 2
    assert "<b>&" not in source
    assert "pen marks on 12 % of the glass" in source
    assert "out of focus" in source
    assert source.index("out of focus") < source.index('id="map"')
    for words in (
        slide_page.RESEARCH,
        "B1, C2",
        "squares of 20 µm",
        "Trust comes from 12 held-out spots.",
    ):
        assert words in source
    unknown = prediction()
    unknown.var["trust"] = ["", "yes", "no", "maybe"]
    (path,) = slide_page.write_page(unknown, tmp_path / "c.html", genes=[])
    trust = [entry["trust"] for entry in packed_in(path)["layers"]]
    assert trust == ["yes", "no", "unknown", "unknown"]
    unknown = prediction()
    unknown.uns["histospace_tf"] = {"trained_on_simulated_tissue": True, "trained_on_slides": ["a"]}
    (path,) = slide_page.write_page(unknown, tmp_path / "b.html", genes=[])
    source = path.read_text(encoding="utf-8")
    for words in ("simulated tissue", "no place was ever measured", "is not known: the run has no"):
        assert words in source


def test_of_too_many_values_the_most_trusted_and_the_named_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(page_layers, "VALUE_BYTES", 12)  # of 6 places
    (path,) = slide_page.write_page(slide(), tmp_path / "a.html", genes=["ERBB2"])
    assert [entry["key"] for entry in packed_in(path)["layers"]] == ["GNAS", "ERBB2"]
    assert "2 of 4 genes" in capsys.readouterr().err
    assert "2 of 4 genes are on this page" in path.read_text(encoding="utf-8")


def test_gene_sets_stand_before_genes(tmp_path: Path) -> None:
    table = slide()
    table.var["unit"] = ["u", "u", gene_sets.UNIT, gene_sets.UNIT]
    (path,) = slide_page.write_page(table, tmp_path / "a.html", genes=[])
    shown = [(entry["key"], entry["is_set"]) for entry in packed_in(path)["layers"]]
    assert shown == [(HOSTILE, True), ("ACTB", True), ("GNAS", False), ("ERBB2", False)]
    source = path.read_text(encoding="utf-8")
    assert "2 genes in u, 2 gene sets" in source
    assert re.findall('<optgroup label="(.*?)"', source) == [
        "Gene sets, trust ● yes: 1",
        "Gene sets, trust ◐ weak: 1",
        "Trust ● yes: 1",
        "Trust ○ no: 1",
    ]
    assert slide_page.SETS_ARE in html.unescape(source)


def test_twenty_thousand_places_of_250_genes_stay_below_ten_megabytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    at = np.stack(np.meshgrid(np.arange(160), np.arange(125)), axis=-1).reshape(-1, 2)
    table = anndata.AnnData(
        X=rng.normal(size=(len(at), 250)).astype(np.float32),
        obs=pd.DataFrame(index=[f"tile{i}" for i in range(len(at))]),
        var=pd.DataFrame({"unit": "u"}, index=[f"gene{i}" for i in range(250)]),
        obsm={"spatial": at * 200.0},
        uns=prediction().uns,
    )
    entry = table.uns["spatial"]["slide"]
    noise = cv2.GaussianBlur(rng.normal(200, 90, (1600, 2000, 3)), (0, 0), 1.5)  # finer than H&E
    entry["images"]["hires"] = np.clip(noise, 0, 255).astype(np.uint8)
    entry["scalefactors"] = {"tissue_hires_scalef": 0.06, "spot_diameter_fullres": 200.0}
    (path,) = slide_page.write_page(table, tmp_path / "a.html", genes=[])
    assert path.stat().st_size < 10e6
    assert len(packed_in(path)["layers"]) == 250


def test_what_cannot_be_a_page_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not predict 'NOSUCH'"):
        slide_page.write_page(slide(), tmp_path / "a.html", genes=["NOSUCH"])
    odd = prediction()
    odd.uns["spatial"]["slide"]["images"]["hires"] = np.zeros((4, 4))
    with pytest.raises(InputError, match="another form than"):
        slide_page.write_page(odd, tmp_path / "a.html", genes=[])
    no_place = prediction()
    del no_place.uns["spatial"]
    with pytest.raises(InputError, match=r'no uns\["spatial"\]'):
        slide_page.write_page(no_place, tmp_path / "a.html", genes=[])
    assert not (tmp_path / "a.html").exists()
    slide_page.write_page(slide(), tmp_path / "a.html", genes=[])
    with pytest.raises(InputError, match="exists already"):
        slide_page.write_page(slide(), tmp_path / "a.html", genes=[])


def test_a_finished_prediction_is_viewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address))  # finds none
    outputs.write_h5ad(slide(), tmp_path / "a.h5ad")
    assert histospace_tf.view(tmp_path / "a.h5ad") == tmp_path / "a.html"
    assert opened == []
    line = ["view", str(tmp_path / "a.h5ad")]
    result = CliRunner().invoke(main, line)
    assert (result.exit_code, "--force" in result.output) == (2, True)
    result = CliRunner().invoke(main, [*line, "--open", "--force"])
    assert result.exit_code == 0, result.output
    assert opened == [(tmp_path / "a.html").as_uri()]
    assert "No browser was found" in result.output
    (tmp_path / "a.html").write_text("another page")
    result = CliRunner().invoke(main, [*line, "--open"])  # newer than the prediction
    assert (result.exit_code, len(opened)) == (0, 2)
    assert (tmp_path / "a.html").read_text() == "another page"
    os.utime(tmp_path / "a.html", (0, 0))
    result = CliRunner().invoke(main, [*line, "--open"])
    assert (result.exit_code, "exists already" in result.output, len(opened)) == (2, True, 2)
    result = CliRunner().invoke(main, [*line, "--out", str(tmp_path / "a.htm")])
    assert (result.exit_code, "--out" in result.output) == (2, True)
    out = tmp_path / "other" / "b.html"
    result = CliRunner().invoke(main, [*line, "--out", str(out)])
    assert (result.exit_code, out.is_file()) == (0, True)


def test_pages_of_many_slides_are_listed_with_what_to_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "more").mkdir()
    name = "more/c & d"
    (tmp_path / f"{name}.html").touch()
    row: dict[str, Any] = {"patient": "", "places": 0, "state": "failed", "why": "", "warnings": ""}
    rows = [
        row | {"name": name, "patient": "P1", "places": 1500, "state": "predicted"},
        row | {"name": "b", "why": f"cannot be read {HOSTILE}"},
        row | {"name": "a", "warnings": "blurred\ninked"},
    ]
    path = page_index.write(tmp_path, rows, predictions=tmp_path)
    assert path == tmp_path / "index.html"
    source = path.read_text(encoding="utf-8")
    assert re.findall('href="([^"]*html)"', source) == ["more/c%20%26%20d.html"]
    for words in ("1 predicted, 2 failed", "1,500", "<p>blurred</p><p>inked</p>", "cannot be read"):
        assert words in source
    assert "<b>&" not in source
    named = [row | {"name": "index"}]
    assert page_index.write(tmp_path, named, predictions=tmp_path) is None
    assert "is the page of a slide" in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == source


def test_a_folder_of_predictions_is_viewed(tmp_path: Path) -> None:
    folder = tmp_path / "slides"
    (folder / "more").mkdir(parents=True)
    for name in ("a", "more/b"):
        outputs.write_h5ad(slide(), folder / f"{name}.h5ad")
    (folder / "more" / "torn.h5ad").write_text("no prediction")
    outputs.write_h5ad(slide(), folder / "cohort.h5ad")  # the table of all has no page
    pd.DataFrame(
        [
            {"name": "a", "patient": "P1", "places": 6, "state": "predicted"},
            {"name": "lost", "state": "failed", "why": "cannot be read"},
        ]
    ).reindex(columns=["name", "patient", "places", "state", "why", "warnings"]).to_csv(
        folder / "summary.csv", index=False
    )
    result = CliRunner().invoke(main, ["view", str(folder)])
    assert result.exit_code == 0, result.output
    assert "Failed: " in result.output
    assert "torn.h5ad" in result.output
    listed = (folder / "index.html").read_text(encoding="utf-8")
    assert re.findall('href="([^"]*html)"', listed) == ["a.html", "more/b.html"]
    assert re.findall("<span>(.*?)</span>", listed) == ["a", "lost", "more/b", "more/torn"]
    for words in ("2 predicted, 2 failed", "Failed: cannot be read", "P1"):
        assert words in listed
    assert "Trust in 4 genes: 2 yes, 1 weak, 1 no; it comes from 12 held-out spots." in listed
    assert listed.count(f"<p>{html.escape(WARNING)}</p><p>out of focus</p>") == 2
    assert listed.count("data:image/webp") == 2
    height, width = slide().uns["spatial"]["slide"]["images"]["hires"].shape[:2]
    assert f"{100 * 6 * 40**2 / (height * width):.0f} %, 0.0024 mm²" in listed
    assert not (folder / "cohort.html").exists()

    first = (folder / "a.html").stat().st_mtime_ns
    assert histospace_tf.view(folder) == folder / "index.html"
    assert (folder / "a.html").stat().st_mtime_ns == first
    histospace_tf.view(folder, force=True)
    assert (folder / "a.html").stat().st_mtime_ns > first
    os.utime(folder / "a.html", (0, 0))  # of an earlier prediction: not replaced unasked
    histospace_tf.view(folder)
    assert (folder / "a.html").stat().st_mtime_ns == 0
    assert "exists already" in (folder / "index.html").read_text(encoding="utf-8")

    elsewhere = histospace_tf.view(folder, out=tmp_path / "pages")
    assert (tmp_path / "pages" / "more" / "b.html").is_file()
    assert elsewhere == tmp_path / "pages" / "index.html"


def test_folders_that_cannot_be_viewed_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no prediction"):
        histospace_tf.view(tmp_path)
    outputs.write_h5ad(slide(), tmp_path / "index.h5ad")
    with pytest.raises(InputError, match="a folder is needed"):
        histospace_tf.view(tmp_path, out=tmp_path / "a.html")
    with pytest.raises(InputError, match="is a slide's page"):
        histospace_tf.view(tmp_path)
    (tmp_path / "summary.csv").write_text("name,state\n")
    with pytest.raises(InputError, match="lacks column 'patient'"):
        histospace_tf.view(tmp_path)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    program = chromium.command()
    if program is None:
        pytest.skip("Chromium is absent: no chromium on the path, none in HISTOSPACE_CHROMIUM")
    folder = tmp_path_factory.mktemp("page")
    (path,) = slide_page.write_page(slide(), folder / "a.html", genes=["GNAS"])
    with chromium.browser(program) as tab:
        tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        tab.resize(1280, 900)
        tab.open(path)
        tab.folder = folder  # type: ignore[attr-defined]
        yield tab


def set_to(page: chromium.Page, control: str, value: object, event: str) -> None:
    page.run(
        f"(() => {{ const c = document.getElementById('{control}'); c.value = {json.dumps(value)};"
        f"c.dispatchEvent(new Event('{event}')); }})()"
    )
    drawn(page)


def drawn(page: chromium.Page) -> None:
    """Waits until the map stands as the controls say."""
    page.run("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")


def said(page: chromium.Page, name: str) -> str:
    return str(page.run(f"document.getElementById('{name}').textContent"))


def place_on_screen(page: chromium.Page, table: anndata.AnnData, i: int) -> tuple[float, float]:
    """Where a place's middle is in the window, when all places are shown."""
    x, y, width, height = page.run(
        "(() => { const c = document.getElementById('map'), b = c.getBoundingClientRect();"
        "return [b.left + c.clientLeft, b.top + c.clientTop, c.clientWidth, c.clientHeight]; })()"
    )
    at = np.asarray(table.obsm["spatial"]) + 0.5
    low, high = at.min(axis=0) - 40, at.max(axis=0) + 40  # a place's width around all of them
    zoom = min(width / (high - low)[0], height / (high - low)[1])
    dx, dy = (at[i] - (low + high) / 2) * zoom
    return x + width / 2 + dx, y + height / 2 + dy


def colour_at(page: chromium.Page, x: float, y: float) -> list[int]:
    return list(
        page.run(
            "(() => { const c = document.getElementById('map'), b = c.getBoundingClientRect();"
            f"return [...c.getContext('2d').getImageData({x} - b.left - c.clientLeft, {y} - b.top"
            " - c.clientTop, 1, 1).data]; })()"
        )
    )[:3]


def test_a_place_has_the_colour_of_its_value_on_either_scale(page: chromium.Page) -> None:
    table = slide()
    set_to(page, "fade", 100, "input")
    values = np.asarray(table.X, np.float64)
    for scale in ("own", "shared"):
        set_to(page, "scale", scale, "change")
        limits = np.nanpercentile(values, [1, 99], axis=0)
        low, high = limits[:, 1] if scale == "own" else (limits[0].min(), limits[1].max())
        for i in range(table.n_obs):
            share = np.clip((values[i, 1] - low) / (high - low), 0, 1)
            expected = np.array(matplotlib.colormaps["viridis"](round(share * 255))[:3]) * 255
            shown = colour_at(page, *place_on_screen(page, table, i))
            np.testing.assert_allclose(shown, expected, atol=4)  # one of 256 colours beside it
        assert said(page, "low") == f"≤ {low:.2f}"
    set_to(page, "scale", "own", "change")
    # Where nothing is left of the map, the H&E is.
    set_to(page, "fade", 0, "input")
    x, y = np.round(table.obsm["spatial"][0]).astype(int)
    picture = table.uns["spatial"]["slide"]["images"]["hires"][y - 2 : y + 3, x - 2 : x + 3]
    shown = colour_at(page, *place_on_screen(page, table, 0))
    np.testing.assert_allclose(shown, picture.mean(axis=(0, 1)), atol=25)  # JPEG, and enlarged
    set_to(page, "fade", 80, "input")


def test_pointer_and_keys_tell_value_trust_and_region(page: chromium.Page) -> None:
    table = slide()
    x, y = place_on_screen(page, table, 2)
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    value = float(table.X[2, 1])
    assert said(page, "readout") == (
        f"tile2 at 70, 25 µm, a, b: GNAS {value:.2f} some unit (trust: ● yes, held-out r 0.50)"
    )
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=5, y=5)
    assert said(page, "readout") == ""
    page.run("document.getElementById('map').focus()")
    page.press("0", 48)
    for _ in range(2):
        page.press("+", 187)
    for _ in range(8):
        page.press("ArrowRight", 39)
    told = []
    for _ in range(30):  # to the right edge, then left: the places of the row of the middle
        page.press("ArrowLeft", 37)
        told.append(said(page, "readout").partition(" ")[0])
    assert len(set(told) - {""}) >= 2
    page.press("0", 48)


def test_wheel_and_drag_move_the_map(page: chromium.Page) -> None:
    table = slide()
    page.run("document.activeElement.blur()")
    x, y = place_on_screen(page, table, 0)
    for at in ((x, y), (5, 5)):  # what the keys pointed at is forgotten
        page.call("Input.dispatchMouseEvent", type="mouseMoved", x=at[0], y=at[1])
    drawn(page)
    before = page.run("document.getElementById('map').toDataURL()")
    page.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-400)
    drawn(page)
    zoomed = page.run("document.getElementById('map').toDataURL()")
    assert zoomed != before
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert said(page, "readout").startswith("tile0 ")  # what is under the wheel stays there
    mouse = {"button": "left", "clickCount": 1}
    page.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, **mouse)
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + 60, y=y + 30, buttons=1, **mouse)
    page.call("Input.dispatchMouseEvent", type="mouseReleased", x=x + 60, y=y + 30, **mouse)
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + 61, y=y + 30)
    assert said(page, "readout").startswith("tile0 ")  # it came along
    page.run("document.getElementById('fit').click()")
    drawn(page)
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=5, y=5)
    drawn(page)
    assert page.run("document.getElementById('map').toDataURL()") == before


def test_genes_are_searched_and_doubted(page: chromium.Page) -> None:
    listed = "[...document.querySelectorAll('#gene option')].map(o => o.textContent)"
    assert page.run(listed) == [
        "● GNAS (r 0.50)",
        f"● IGKC ({HOSTILE}) (r 0.40)",
        "◐ ACTB (r 0.15)",
        "○ ERBB2 (r 0.00)",
    ]
    set_to(page, "find", "erb", "input")
    assert page.run(listed) == ["○ ERBB2 (r 0.00)"]
    assert said(page, "count") == "1 of 4 genes"
    page.run("document.getElementById('find').focus()")
    page.press("Enter", 13)
    assert said(page, "title") == "ERBB2"
    assert "○ no (held-out spots do not show it)" in said(page, "state")
    assert page.run("document.getElementById('state').className") == "state doubt"
    rows = "[...document.querySelectorAll('#by-region tbody tr')].map(r => r.textContent)"
    values = np.asarray(slide()[[0, 1, 5], "ERBB2"].X).ravel()
    mean, middle, upper = values.mean(), np.median(values), np.percentile(values, 90)
    assert page.run(rows)[1] == f"tumour3{mean:.2f}{middle:.2f}{upper:.2f}"
    set_to(page, "find", "", "input")
    set_to(page, "gene", "0", "change")
    assert said(page, "title") == "GNAS"


def test_picture_and_table_are_saved(page: chromium.Page) -> None:
    folder: Path = page.folder  # type: ignore[attr-defined]

    def saved(button: str, name: str) -> bytes:
        page.run(f"document.getElementById('{button}').click()")
        until = time.monotonic() + 30
        while not (folder / name).is_file():
            assert time.monotonic() < until, sorted(folder.iterdir())
            time.sleep(0.05)
        return (folder / name).read_bytes()

    table = slide()
    read = pd.read_csv(io.BytesIO(saved("save-all", "slide.csv")))
    assert list(read) == ["place", "x_px", "y_px", "x_um", "y_um", "region", "GNAS", HOSTILE,
                          "ACTB", "ERBB2"]  # fmt: skip
    assert list(read["place"]) == list(table.obs_names)
    assert list(read["region"].fillna("")) == ["tumour", "tumour", "a, b", "a, b", "", "tumour"]
    np.testing.assert_allclose(read[["x_px", "y_px"]], table.obsm["spatial"], atol=0.051)
    np.testing.assert_allclose(read[["x_um", "y_um"]] / 0.5, table.obsm["spatial"], atol=0.11)
    np.testing.assert_allclose(read[list(table.var_names)], table.X, atol=1e-4)
    one = pd.read_csv(io.BytesIO(saved("save-gene", "slide_GNAS.csv")))
    assert list(one)[-1] == "GNAS"
    picture = cv2.imdecode(
        np.frombuffer(saved("save-picture", "slide_GNAS.png"), np.uint8), cv2.IMREAD_COLOR
    )
    assert picture is not None
    width, height = page.run(
        "(() => { const c = document.getElementById('map'); return [c.width, c.height]; })()"
    )
    assert picture.shape[1] == width
    assert picture.shape[0] > height + 60
    assert picture[height + 5 :].min() < 50  # words under the map


def two_fingers_zoom(page: chromium.Page) -> None:
    """Fingers that part on a place bring it nearer, and a finger that rests on it names it."""
    page.call("Emulation.setTouchEmulationEnabled", enabled=True)
    page.run("window.scrollTo(0, 0); document.getElementById('fit').click()")
    drawn(page)
    action = "document.getElementById('map').style.touchAction"
    assert page.run(action) == "pan-y"  # one finger scrolls the page
    x, y = place_on_screen(page, slide(), 4)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        fingers = [{"x": at[0], "y": at[1], "id": i} for i, at in enumerate(points)]
        page.call("Input.dispatchTouchEvent", type=kind, touchPoints=fingers)

    touch("touchStart", (x - 10, y), (x + 10, y))
    for apart in (20, 30, 40):
        touch("touchMove", (x - apart, y), (x + apart, y))
    touch("touchEnd")
    drawn(page)
    assert page.run(action) == "none"  # now it moves the map
    touch("touchStart", (x, y))
    touch("touchEnd")
    assert said(page, "readout").startswith("tile4 at 50, 45 µm: GNAS")
    page.call("Emulation.setTouchEmulationEnabled", enabled=False)


def test_phone_paper_and_dark_are_readable_and_nothing_is_asked_of_elsewhere(
    page: chromium.Page,
) -> None:
    page.resize(390, 800, phone=True)
    assert page.run("document.documentElement.scrollWidth") <= 390
    assert page.run("document.getElementById('map').clientWidth") > 300
    two_fingers_zoom(page)
    page.resize(1280, 900)
    style = "getComputedStyle(document.querySelector('{}')).{}"
    page.call("Emulation.setEmulatedMedia", media="print")
    assert page.run(style.format("#slide .controls", "display")) == "none"
    assert page.run(style.format("#map", "display")) != "none"
    assert page.pdf().startswith(b"%PDF")
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.call("Emulation.setEmulatedMedia", media="", features=dark)
    paper, ink = (page.run(style.format("body", name)) for name in ("backgroundColor", "color"))
    brightness = [np.mean([int(v) for v in re.findall(r"\d+", c)[:3]]) for c in (paper, ink)]
    assert brightness[0] < 60
    assert brightness[1] > 200
    page.call("Emulation.setEmulatedMedia", media="", features=[])
    assert page.errors == []
    outside = [url for url in page.requests if not url.startswith(("data:", "file:", "blob:"))]
    assert outside == []


def test_levels_of_two_bytes_stand_lower_byte_first() -> None:
    levels = viewer.quantised(
        np.array([[0.0], [1.0], [np.nan]]), [{"min": 0.0, "max": 2.0}], levels=1000
    )
    assert levels.dtype.str == "<u2"
    assert list(levels[0]) == [0, 500, 1001]
