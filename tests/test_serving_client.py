"""A prediction over a server equals a local one; the server has neither Keras nor the package."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anndata
import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from histospace_tf import bundle as bundles
from histospace_tf import cli, predicting
from histospace_tf.bundle import Bundle
from histospace_tf.cohort import features
from histospace_tf.data_pipelines import datasets, recolouring, stain
from histospace_tf.exports import cpp_loader, expected, saved_model
from histospace_tf.models import regressor
from histospace_tf.requests import PredictRequest
from histospace_tf.slide_prediction import server_address, serving_client
from histospace_tf.vocabulary import InputError

pytestmark = pytest.mark.slow

BUSY = (2, 5, 6, 11)  # requests that the server refuses


@dataclasses.dataclass(frozen=True)
class Ports:
    grpc: int
    rest: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.grpc}"

    def post(self, body: object, model: str = saved_model.MODEL_NAME) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.rest}/v1/models/{model}:predict",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def ports(small_run: Path) -> Iterator[Ports]:
    with serving(small_run, BUSY) as found:
        yield found


@contextlib.contextmanager
def serving(small_run: Path, busy: Sequence[int]) -> Iterator[Ports]:
    """A server of its own, which refuses the requests of these numbers."""
    command = [
        *(sys.executable, str(Path(__file__).with_name("made") / "serving_server.py")),
        *(str(cpp_loader.__file__), str(small_run / "saved_model" / "1")),
        *(saved_model.MODEL_NAME, ",".join(map(str, busy))),
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        yield Ports(**json.loads(server.stdout.readline()))
        server.communicate("", timeout=20)


@pytest.fixture(scope="module")
def slide(small_tissue: Path) -> Path:
    return sorted(small_tissue.rglob("*.jpg"))[0]


@pytest.fixture(scope="module")
def model(small_run: Path) -> Bundle:
    return bundles.load(small_run)


@pytest.fixture(scope="module")
def tiles(small_run: Path) -> np.ndarray:
    with np.load(small_run / "parity_tiles.npz") as kept:
        return kept["tile"][:3]


def test_the_pages_python_request_is_answered(
    small_run: Path,
    ports: Ports,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (Path(__file__).parents[1] / "docs" / "serving.md").read_text(encoding="utf-8")
    block = page.split("```python\n")[1].split("```")[0]
    (tmp_path / "run").mkdir()
    shutil.copy(small_run / "parity_tiles.npz", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    exec(block.replace("localhost:8500", ports.address), {})
    assert capsys.readouterr().out.strip().endswith(", 12)")  # the small run's genes


def test_server_gives_the_file_that_this_machine_gives(
    small_run: Path, slide: Path, ports: Ports, tmp_path: Path
) -> None:
    local, served = tmp_path / "local.h5ad", tmp_path / "served.h5ad"
    predicting.predict(PredictRequest(slide, model=small_run, out=local, mpp=0.5, step_um=80))
    options = ["--mpp", "0.5", "--step-um", "80", "--server", ports.address]
    arguments = [str(slide), "--model", str(small_run), "--out", str(served), *options]
    done = CliRunner().invoke(cli.main, ["predict", *arguments])
    assert done.exit_code == 0, done.output
    here, there = anndata.read_h5ad(local), anndata.read_h5ad(served)
    assert here.n_obs >= 2 * serving_client.REQUEST_ROWS  # several requests, whose order matters
    assert np.asarray(here.X).std(axis=0).min() > 0
    np.testing.assert_allclose(there.X, here.X, rtol=1e-4, atol=1e-4)
    known = here.obs.pop("familiarity")
    np.testing.assert_allclose(there.obs.pop("familiarity"), known, atol=1e-3)
    assert there.obs.equals(here.obs)
    assert there.var.equals(here.var)
    np.testing.assert_array_equal(there.obsm["spatial"], here.obsm["spatial"])
    here.uns["histospace_tf"].pop("date")
    assert there.uns["histospace_tf"].pop("date")
    assert here.uns["histospace_tf"].pop("network") == "Keras"
    assert there.uns["histospace_tf"].pop("network") == "TF Serving"
    assert str(there.uns["histospace_tf"]) == str(here.uns["histospace_tf"])
    assert str(there.uns["spatial"]) == str(here.uns["spatial"])


def test_served_models_have_the_form_of_those_they_replace(model: Bundle, ports: Ports) -> None:
    side = model.config.tiles.tile_px
    with serving_client.connected(f"{ports.address}/{saved_model.MODEL_NAME}", model) as served:
        assert served.trunk.output_shape == model.trunk.compute_output_shape((None, side, side, 3))
        assert served.head.output_shape == model.head.output_shape
        assert [i.name for i in served.head.inputs] == [i.name for i in model.head.inputs]
        assert served.panel is model.panel


def test_the_server_has_neither_keras_nor_this_package(ports: Ports) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{ports.rest}/", timeout=60) as answer:
        modules = json.load(answer)["modules"]
    tops = {name.partition(".")[0] for name in modules}
    assert "tensorflow" in tops
    assert not tops & {"keras", "tf_keras", "histospace_tf"}


def test_rest_rows_and_columns_give_what_keras_gives(
    model: Bundle, tiles: np.ndarray, ports: Ports
) -> None:
    right = expected.keras_expression(model, tiles)
    rows = ports.post({"instances": tiles.tolist()})["predictions"]
    columns = ports.post({"signature_name": "serving_default", "inputs": {"tile": tiles.tolist()}})
    for got in (rows, columns["outputs"]):
        np.testing.assert_allclose(got, right, rtol=1e-4, atol=1e-4)
    genes = ports.post({"signature_name": "genes", "instances": [1, 0]})["predictions"]
    assert genes == [model.panel.genes[1], model.panel.genes[0]]


def test_rest_images_travel_as_base64(model: Bundle, tiles: np.ndarray, ports: Ports) -> None:
    right = expected.keras_expression(model, tiles)
    png = [cv2.imencode(".png", cv2.cvtColor(tile, cv2.COLOR_RGB2BGR))[1] for tile in tiles]
    wrapped = [{"b64": base64.b64encode(content.tobytes()).decode()} for content in png]
    for instances in (wrapped, [{"image_bytes": one} for one in wrapped]):
        answer = ports.post({"signature_name": "predict_bytes", "instances": instances})
        np.testing.assert_allclose(answer["predictions"], right, rtol=1e-4, atol=1e-4)


def test_rest_raw_tiles_are_normalised_on_the_server(
    model: Bundle, tiles: np.ndarray, ports: Ports
) -> None:
    slide_stains = dataclasses.replace(
        stain.canonical_stains(model.reference.method),
        white_point=np.array([246.0, 240.0, 238.0]),
        luminosity=250.0,
        max_concentration=np.array([1.3, 1.1]),
    )
    row = {n: v[0].tolist() for n, v in expected.stain_inputs(slide_stains, 1).items()}
    answer = ports.post(
        {
            "signature_name": "predict_raw",
            "instances": [{"tile": tile.tolist(), **row} for tile in tiles],
        }
    )
    recoloured = recolouring.normalise(tiles, slide_stains, model.reference)
    right = expected.keras_expression(model, recoloured)
    # A few pixels of a tile may be one grey level apart.
    apart = np.abs(np.asarray(answer["predictions"]) - right).max()
    assert apart < 0.01
    untouched = expected.keras_expression(model, tiles)
    assert np.abs(untouched - right).max() > max(0.03, 10 * apart)


def test_rest_refusals_name_what_was_found(tiles: np.ndarray, ports: Ports) -> None:
    garbage = base64.b64encode(b"no image at all").decode()
    small = cv2.imencode(".png", tiles[0][:20, :20])[1].tobytes()
    wrong_size = base64.b64encode(small).decode()
    for content, words in ((garbage, "PNG or JPEG is needed"), (wrong_size, "[20,20,3]")):
        body = {"signature_name": "predict_bytes", "instances": [{"b64": content}]}
        with pytest.raises(urllib.error.HTTPError) as refused:
            ports.post(body)
        assert refused.value.code == 400
        assert words in json.load(refused.value)["error"]


def test_another_runs_model_is_refused(model: Bundle, ports: Ports) -> None:
    weights = model.trunk.get_weights()
    other = dataclasses.replace(model, trunk=regressor.build_trunk(
        model.encoder, architecture=model.config.regressor.architecture
    ))  # fmt: skip
    other.trunk.set_weights([values + 0.1 for values in weights])
    with (
        pytest.raises(InputError, match=r"the weights of its model 'histospace_tf' are not those"),
        serving_client.connected(ports.address, other),
    ):
        pass
    panel = dataclasses.replace(model.panel, genes=model.panel.genes[::-1])
    with (
        pytest.raises(InputError, match="the genes of its model"),
        serving_client.connected(ports.address, dataclasses.replace(model, panel=panel)),
    ):
        pass


@pytest.mark.parametrize("which", ["kernel", "bias"])
def test_another_fit_on_the_same_encoder_and_panel_is_refused(
    model: Bundle, ports: Ports, which: str
) -> None:
    head = regressor.build_head(
        model.head.inputs[0].shape[1:], len(model.panel), model.config.regressor
    )
    kernel, bias, *others = model.head.get_weights()
    changed = (-kernel, bias) if which == "kernel" else (kernel, bias + 0.1)
    head.set_weights([*changed, *others])
    with (
        pytest.raises(InputError, match="the weights of its model"),
        serving_client.connected(ports.address, dataclasses.replace(model, head=head)),
    ):
        pass


def test_long_requests_are_sent_again_too(
    small_run: Path, model: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_client, "REQUEST_ROWS", 1_000_000)
    monkeypatch.setattr(serving_client, "_served", lambda server, *_: server)
    index = np.arange(500_000, dtype=np.int32) % len(model.panel)  # 2 MB; untold, gRPC keeps 256 kB
    # Three requests see whether it is the same model; the next one is refused twice.
    with (
        serving(small_run, [4, 5]) as own,
        serving_client.connected(own.address, model) as server,
    ):
        symbols = server.call("genes", {"index": index})  # type: ignore[attr-defined]
    assert len(symbols) == len(index)
    assert symbols[-1].decode() == model.panel.genes[index[-1]]


def test_a_version_is_asked_for_by_number(model: Bundle, ports: Ports) -> None:
    name = f"{ports.address}/{saved_model.MODEL_NAME}"
    with serving_client.connected(f"{name}/versions/1", model) as served:
        assert served.panel is model.panel
    with (
        pytest.raises(InputError, match=r"NOT_FOUND: .*7.*versions/N says which"),
        serving_client.connected(f"{name}/versions/7", model),
    ):
        pass


def test_unknown_model_name_is_refused_by_name(model: Bundle, ports: Ports) -> None:
    with (
        pytest.raises(InputError, match=r"NOT_FOUND: Servable not found .*other.*HOST:PORT/NAME"),
        serving_client.connected(f"{ports.address}/other", model),
    ):
        pass


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("localhost:8500", ("localhost:8500", None, None)),
        ("10.0.0.1:8500/other", ("10.0.0.1:8500", "other", None)),
        ("host:1/other/versions/2", ("host:1", "other", 2)),
        ("[::1]:8500/m", ("[::1]:8500", "m", None)),
    ],
)
def test_addresses_are_read(text: str, right: tuple[object, ...]) -> None:
    assert dataclasses.astuple(server_address(text)) == right


@pytest.mark.parametrize(
    "address",
    [
        *("", "localhost", "localhost:0", "localhost:99999", "localhost:8500:1", "::1:8500"),
        *("http://localhost:8501", "localhost:8500/a/b", "localhost:8500/a/versions/x"),
    ],
)
def test_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(InputError, match=r"HOST:PORT, HOST:PORT/NAME or .* works"):
        server_address(address)


def test_server_that_is_not_there_is_one_line(
    model: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(serving_client._RETRIES, "methodConfig", [])  # which would take seconds
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        pytest.raises(InputError, match=r"UNAVAILABLE: .*is TF Serving running there") as refused,
        serving_client.connected(f"127.0.0.1:{port}", model),
    ):
        pass
    assert "\n" not in str(refused.value)


def test_server_that_goes_away_halfway_is_one_line(
    model: Bundle, tiles: np.ndarray, ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*arguments: object) -> np.ndarray:
        raise InputError("server gone")

    group = datasets.StainedTiles(tiles, model.reference, model.reference)
    with (  # noqa: PT012
        pytest.raises(InputError, match=r"^server gone$"),
        serving_client.connected(ports.address, model) as served,
    ):
        monkeypatch.setattr(serving_client.Server, "call", gone)
        features.tile_features(served.trunk, [group], symmetries=1, label="Test")


def test_without_the_extra_the_command_to_install_it_is_named(
    model: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    with (
        pytest.raises(InputError, match=r'pip install "histospace-tf\[serving\]"'),
        serving_client.connected("localhost:8500", model),
    ):
        pass
