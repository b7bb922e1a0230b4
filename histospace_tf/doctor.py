"""What this installation can do here: versions, processors, room, GPUs, extras, and a self-test."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from scipy import signal

from histospace_tf import bundle, faults, packaged, provenance

OK, NOTE, FAULT = "ok", "note", "fault"
LEAST_ROOM = 2e9  # bytes of disk: a training's tiles and features of some 8,000 spots
_AGREES_WITHIN = 1e-4  # of a convolution of values around 1; float32 gives about 1e-6
_NOT_TOLD = ("test", "gpu")  # for developers; told by the GPUs that are found
_EXTRA = re.compile(r"(?P<package>[\w.-]+).*extra == ['\"](?P<extra>\w+)['\"]")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line: OK, NOTE or FAULT, and what was found."""

    state: str
    text: str


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """All findings, in the order in which they are told."""

    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """`faults.FAULT` where something does not work."""
        has_fault = any(finding.state == FAULT for finding in self.findings)
        return faults.FAULT if has_fault else faults.DONE

    def text(self) -> str:
        """One line per finding."""
        return "\n".join(f"{finding.state:<6}{finding.text}" for finding in self.findings)


def examine() -> Diagnosis:
    """Looks at this installation; takes a few seconds, most of them to load the packaged model."""
    return Diagnosis((*_versions(), _processors(), *_gpus(), *_room(), *_extras(), *_self_test()))


def _versions() -> list[Finding]:
    versions = provenance.versions()
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    unknown = [name for name, version in versions.items() if version == "unknown"]
    found = [Finding(OK, listed)]
    if unknown:
        found.append(Finding(NOTE, f"{', '.join(unknown)}: imported from another distribution"))
    return found


def _processors() -> Finding:
    threads = tf.config.threading.get_intra_op_parallelism_threads() or os.environ.get(
        "TF_NUM_INTRAOP_THREADS"
    )
    onednn = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "the build's own setting")
    return Finding(
        OK,
        f"{os.cpu_count()} processors, TensorFlow uses {threads or 'all'} "
        f"(TF_NUM_INTRAOP_THREADS); oneDNN {onednn} (TF_ENABLE_ONEDNN_OPTS)",
    )


def _gpus() -> list[Finding]:
    devices = tf.config.list_physical_devices("GPU")
    if not devices:
        return [Finding(NOTE, "no GPU: everything runs on the processor, as it is meant to")]
    return [
        Finding(OK, f"{device.name}: {_details(device).get('device_name', 'a GPU')}")
        for device in devices
    ]


def _details(device: tf.config.PhysicalDevice) -> dict[str, object]:
    return dict(tf.config.experimental.get_device_details(device))


def _room() -> list[Finding]:
    found = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found.append(Finding(OK, f"{memory / 1e9:.1f} GB of memory"))
    for folder in dict.fromkeys((Path.cwd(), Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        text = f"{free / 1e9:.1f} GB free in {folder}"
        if free < LEAST_ROOM:
            found.append(Finding(NOTE, f"{text}: little for a training's tiles and features"))
        else:
            found.append(Finding(OK, text))
    return found


def _extras() -> list[Finding]:
    """Which extras are installed whole."""
    try:
        required = importlib.metadata.requires("histospace-tf") or []
    except importlib.metadata.PackageNotFoundError:
        return [Finding(NOTE, "histospace-tf is not installed; it runs from a folder of its files")]
    packages: dict[str, list[str]] = {}
    for line in required:
        stated = _EXTRA.match(line)
        if stated is not None and stated["extra"] not in _NOT_TOLD:
            packages.setdefault(stated["extra"], []).append(stated["package"])
    whole = [extra for extra, names in packages.items() if all(map(_is_installed, names))]
    absent = [extra for extra in packages if extra not in whole]
    found = [Finding(OK, f"extras installed: {', '.join(whole)}")] if whole else []
    if absent:
        text = f"extras absent: {', '.join(absent)} (pip install 'histospace-tf[{absent[0]}]')"
        found.append(Finding(NOTE, text))
    return found


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _self_test() -> list[Finding]:
    """The packaged model on two tiles, and a convolution against SciPy's."""
    random = np.random.default_rng(0)
    begun = time.monotonic()
    model = bundle.load(packaged.run_folder(Path(packaged.DEFAULT)))
    side = model.config.tiles.tile_px
    tiles = random.uniform(size=(2, side, side, 3)).astype(np.float32)
    expression = np.asarray(model.single_tile_head(model.trunk(tiles)))
    seconds = time.monotonic() - begun
    wanted = (2, len(model.panel))
    is_sound = expression.shape == wanted and bool(np.isfinite(expression).all())
    says = (
        f"packaged model {packaged.DEFAULT}: two tiles of {side} px predicted, {wanted[1]} genes, "
        f"{seconds:.1f} s with loading"
    )
    found = [Finding(OK, says) if is_sound else Finding(FAULT, f"{says}; not all are numbers")]
    kernel = random.normal(size=(3, 3, 3, 4)).astype(np.float32)
    ours = np.asarray(keras.ops.conv(tiles[:1, :32, :32], kernel, padding="same"))[0]
    apart = float(np.abs(ours - convolved(tiles[0, :32, :32], kernel)).max())
    says = f"a convolution equals SciPy's to within {apart:.1g}"
    found.append(Finding(OK if apart < _AGREES_WITHIN else FAULT, says))
    return found


def convolved(tile: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """(h, w, k) of a (h, w, c) tile and (3, 3, c, k) kernels, zeros around, by SciPy."""
    return np.stack(
        [
            sum(
                signal.correlate2d(tile[..., c].astype(float), kernel[..., c, k], mode="same")
                for c in range(kernel.shape[2])
            )
            for k in range(kernel.shape[3])
        ],
        axis=-1,
    )
