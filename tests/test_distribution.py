from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from histospace_tf import distribution
from histospace_tf.vocabulary import InputError


class _Replicas:
    """A strategy of several workers that hands each worker's share back, for looking at it."""

    def __init__(self, workers: int, per_worker: int) -> None:
        self.workers, self.num_replicas_in_sync = workers, workers * per_worker

    def distribute_datasets_from_function(self, make: object) -> list[list]:
        contexts = [
            tf.distribute.InputContext(self.workers, i, self.num_replicas_in_sync)
            for i in range(self.workers)
        ]
        return [list(make(context).as_numpy_iterator()) for context in contexts]  # type: ignore[operator]


def _batches(n: int, batch: int) -> tf.data.Dataset:
    values = np.arange(n, dtype=np.float32)[:, None]
    return tf.data.Dataset.from_tensor_slices(({"a": values, "b": -values}, values)).batch(batch)


def test_one_replica_gets_whole_batches_of_weight_one() -> None:
    shared = list(distribution.shared_out(_batches(5, 3), distribution.strategy("single")))
    assert [batch[1].numpy().ravel().tolist() for batch in shared] == [[0, 1, 2], [3, 4]]
    assert [batch[2].numpy().tolist() for batch in shared] == [[1, 1, 1], [1, 1]]


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "per_worker"), [(1, 2), (2, 1), (2, 2), (3, 1)])
@pytest.mark.parametrize("n", [1, 7, 8, 17])
def test_replicas_share_every_batch_in_order_and_none_is_empty(
    n: int, workers: int, per_worker: int
) -> None:
    strategy = _Replicas(workers, per_worker)
    shares = distribution.shared_out(_batches(n, 8), strategy)
    for k, start in enumerate(range(0, n, 8)):
        pieces = [
            piece for share in shares for piece in share[k * per_worker : (k + 1) * per_worker]
        ]
        sizes = [int(weights.sum()) for _, _, weights in pieces]
        assert all(len(targets) for _, targets, _ in pieces)
        assert max(sizes) - min(sizes) <= 1
        kept = np.concatenate([targets[weights > 0] for _, targets, weights in pieces]).ravel()
        assert kept.tolist() == list(range(start, min(start + 8, n)))
        for inputs, targets, _ in pieces:
            np.testing.assert_array_equal(inputs["a"], targets)
            np.testing.assert_array_equal(inputs["b"], -targets)


@pytest.mark.parametrize(("workers", "per_worker"), [(1, 2), (2, 1), (2, 2), (3, 1)])
@pytest.mark.parametrize("n", [1, 5, 12, 29])
def test_rows_are_shared_out_in_order_and_every_worker_reads_its_own(
    n: int, workers: int, per_worker: int
) -> None:
    rows = 100 + np.arange(n)
    read: list[int] = []

    def batches_of(some: np.ndarray, size: int) -> tf.data.Dataset:
        read.extend(some)
        return tf.data.Dataset.from_tensor_slices(some).batch(size)

    strategy = _Replicas(workers, per_worker)
    shares = distribution.shared_rows(rows, batches_of, batch_size=3, strategy=strategy)
    steps = {len(share) for share in shares}
    assert len(steps) == 1  # workers wait for each other
    in_order = [
        share[step * per_worker + replica].tolist()
        for step in range(steps.pop() // per_worker)
        for share in shares
        for replica in range(per_worker)
    ]
    assert all(in_order)
    found = [row for part in in_order for row in part]
    assert found[:n] == rows.tolist()
    assert set(found[n:]) <= {rows[-1]}
    assert len(found) - n < workers * per_worker
    assert sorted(read) == sorted(found)


def test_a_process_alone_agrees_with_itself() -> None:
    alone = distribution.strategy("single")
    assert distribution.on_every_worker(True, alone)
    assert not distribution.on_every_worker(False, alone)


def test_single_and_auto_need_no_second_device() -> None:
    assert distribution.strategy("single").num_replicas_in_sync == 1
    if len(tf.config.list_logical_devices("GPU")) < 2:
        assert distribution.strategy("auto").num_replicas_in_sync == 1


def test_mirrored_has_a_replica_on_every_device() -> None:
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    assert distribution.strategy("mirrored").num_replicas_in_sync == len(devices)


def test_description_is_ready_for_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    found = distribution.described(distribution.strategy("single"))
    assert json.loads(json.dumps(found)) == found
    assert (found["replicas"], found["workers"], found["onednn"]) == (1, 1, "1")


def test_a_process_of_its_own_is_the_chief() -> None:
    assert distribution.is_chief(distribution.strategy("single"))


def test_unknown_strategy_is_refused() -> None:
    with pytest.raises(InputError, match=r"'tpu'.*auto, single, mirrored, multiworker"):
        distribution.strategy("tpu")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "needs the environment variable TF_CONFIG"),
        ("", "needs the environment variable TF_CONFIG"),
        ("{", "cannot be read"),
        ("{}", "cannot be read"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "from 0 to 0"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}', "ps 0"),
    ],
)
def test_multiworker_without_a_usable_tf_config_is_refused(
    monkeypatch: pytest.MonkeyPatch, text: str | None, said: str
) -> None:
    if text is None:
        monkeypatch.delenv("TF_CONFIG", raising=False)
    else:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError, match=said):
        distribution.strategy("multiworker")
