"""Memory of training on many spots: tiles cut, features kept, a ridge fitted, on a made section.

    python benchmarks/training_memory.py --spots 20000 --work DIR

A stand-in takes the encoder's place (means of tiles' squares, projected to as many features as the
preset's, eight symmetries), so that 20,000 spots take minutes: what is measured is what is kept,
not the network. Prints, for each stage, the most private memory that it held ("RssAnon": what the
system cannot take back, unlike the pages of memory-mapped files), the process's start included.
Linux only. With `cd` and PYTHONPATH another checkout can be measured in the same way.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from histospace_tf.cohort import head_inputs, sides
from histospace_tf.training import Session

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import keras
import numpy as np
from scipy import sparse

from histospace_tf import config, distribution
from histospace_tf.cohort import paired
from histospace_tf.data_pipelines import gene_panel, splits, stain
from histospace_tf.models import regressor
from histospace_tf.predictors import head_data, head_training
from histospace_tf.vocabulary import Section, SpotTable

GENES = 250
PITCH_PX = 24


def private_bytes() -> int:
    """Memory of this process that no file stands for."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (found,) = (line.split()[1] for line in lines if line.startswith("RssAnon"))
    return 1024 * int(found)


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Prints a row of a Markdown table: most private memory, seconds."""
    most, running, start = private_bytes(), True, time.monotonic()

    def watch() -> None:
        nonlocal most
        while running:
            most = max(most, private_bytes())
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    running = False
    thread.join()
    print(f"| {name} | {most / 2**30:.2f} GiB | {time.monotonic() - start:.0f} |", flush=True)


def made_section(spots: int, folder: Path) -> Section:
    """A square section with a picture of coloured noise and Poisson counts."""
    random = np.random.default_rng(0)
    columns = int(np.ceil(np.sqrt(spots)))
    y, x = np.divmod(np.arange(spots), columns)
    coarse = random.integers(90, 230, (columns, columns, 3), dtype=np.uint8)
    coarse[..., 1] -= 40  # green is the lowest, as in H&E
    side = columns * PITCH_PX
    picture = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    image = folder / "made.png"
    cv2.imwrite(str(image), picture)
    counts = sparse.random_array((spots, GENES), density=0.3, rng=random, dtype=np.float32)
    counts.data = np.ceil(9 * counts.data)
    table = SpotTable(
        names=tuple(f"{a}x{b}" for a, b in zip(x, y, strict=True)),
        centres_px=np.stack([x, y], axis=1) * float(PITCH_PX) + PITCH_PX / 2,
        counts=sparse.csr_matrix(counts),
        genes=tuple(f"GENE{i}" for i in range(GENES)),
    )
    return Section("made", "A", image, table, mpp=0.5, spot_pitch_um=PITCH_PX * 0.5)


def stand_in(side: int) -> keras.Model:
    """Tiles -> as many features as the preset's trunk gives."""
    keras.utils.set_random_seed(0)
    tile = keras.Input((side, side, 3))
    means = keras.layers.Flatten()(keras.layers.AveragePooling2D(side // 4)(tile))
    return keras.Model(tile, keras.layers.Dense(regressor.FEATURES_PER_TILE)(means))


def main() -> None:
    """Prints a Markdown table with a row a stage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spots", type=int, default=20_000)
    parser.add_argument("--tile-px", type=int, default=96)
    parser.add_argument("--work", type=Path, required=True, help="an empty folder")
    given = parser.parse_args()
    given.work.mkdir(parents=True)
    settings = config.changed(
        config.Config(),
        tiles__tile_px=given.tile_px,
        tiles__mpp=0.5,
        context__neighbour_um=PITCH_PX * 0.5 * 2.1,
    )
    print("| stage | most private memory | seconds |\n|---|---|---|")
    with stage("section made"):
        uncut = paired.PairedSpots.of([made_section(given.spots, given.work)], settings)
    with stage("tiles cut"):
        spots = paired.cut_tiles(uncut, settings, given.work / "tiles", pretrain_on=[])
    (own,) = spots.prepared
    with stage("features kept"):
        inputs, _ = head_inputs.of_spots(
            spots,
            stand_in(given.tile_px),
            stain.average_stains([own.stains]),
            settings,
            given.work / "features",
        )
    fold = splits.outer_fold(spots.index, [])
    with stage("targets"):
        genes = gene_panel.choose_panel([spots.spots_of(0, fold.train)], settings.target)
        _, targets, _ = sides.standardised(spots, fold, genes, settings)
    with stage("heads fitted"):
        data = head_data.HeadData(inputs, targets, spots.index, sides.spot_weights(spots, settings))
        strategy = distribution.strategy("single")
        session = Session(strategy, settings.seed, False, given.work / "checkpoints")
        heads = [
            head_training.train_head(
                data,
                fold.train,
                dataclasses.replace(settings.regressor, architecture=architecture),
                session,
            )
            for architecture in ("context", "pooled")
        ]
    kept = sum(path.stat().st_size for path in given.work.rglob("*.npy"))
    kernels = [float(np.abs(head.head.get_layer("factors").kernel).sum()) for head in heads]
    print(f"\n{kept / 2**30:.2f} GiB in files; kernels sum to {kernels}")


if __name__ == "__main__":
    main()
