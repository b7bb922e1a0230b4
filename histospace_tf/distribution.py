"""Devices and workers: a name -> a `tf.distribute` strategy, and what runs on its replicas.

A replica is one copy of the model on one device. Batches are global: a batch of 64 on 4 replicas
is 16 examples on each.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import typing
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from histospace_tf.config import Strategy
from histospace_tf.vocabulary import InputError

NAMES: tuple[str, ...] = typing.get_args(Strategy)
_TF_CONFIG_EXAMPLE = (
    '{"cluster": {"worker": ["host1:port", "host2:port"]}, "task": {"type": "worker", "index": 0}}'
)


def strategy(name: str) -> tf.distribute.Strategy:
    """The strategy of a name.

    Args:
        name: "single": one device, the first GPU or else the CPU; "mirrored": a replica on every
            GPU, or on every logical CPU device where there is no GPU; "multiworker": the same over
            the machines that the environment variable TF_CONFIG names, and to be made before
            TensorFlow has done anything else; "auto": "mirrored" with more than one GPU, else
            "single".
    Raises:
        InputError: an unknown name, or "multiworker" without a usable TF_CONFIG.
    """
    if name not in NAMES:
        raise InputError(f"strategy {name!r} is unknown; one of {', '.join(NAMES)}")
    if name == "multiworker":
        _check_tf_config()
        return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        devices = gpus or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def described(strategy: tf.distribute.Strategy) -> dict[str, Any]:
    """What a manifest records of the machine: numbers here can change a result's last digits."""
    return {
        "strategy": type(strategy).__name__,
        "replicas": strategy.num_replicas_in_sync,
        "workers": _workers(strategy),
        "gpus": [
            tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
            for gpu in tf.config.list_physical_devices("GPU")
        ],
        "logical_cpus": len(tf.config.list_logical_devices("CPU")),
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),  # 0: all
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "unset"),
    }


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes files and shows progress."""
    resolver = strategy.cluster_resolver
    return resolver is None or resolver.task_id in (None, 0)


def on_every_worker(flag: bool, strategy: tf.distribute.Strategy) -> bool:
    """Whether `flag` holds in the process of every worker; all must ask at the same point."""
    if _workers(strategy) == 1:
        return flag

    @tf.function
    def without() -> tf.Tensor:
        lacking = strategy.run(lambda: tf.constant(0.0 if flag else 1.0))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, lacking, axis=None)

    return float(without()) == 0


def shared_rows(
    rows: np.ndarray,
    batches_of: Callable[[np.ndarray, int], tf.data.Dataset],
    *,
    batch_size: int,
    strategy: tf.distribute.Strategy,
) -> Any:
    """Shares rows out to replicas: a worker's pipeline reads the rows of its own replicas alone.

    Args:
        rows: (n,) at least one; the same on every worker.
        batches_of: rows, batch size -> batches of what stands in those rows, in their order.
        batch_size: of a replica.
    Returns:
        A distributed dataset. What the replicas have, one after the other, are the next
        replicas * batch_size rows; those that are left at the end are shared evenly, and where they
        cannot be, the last row is repeated.
    """
    replicas = strategy.num_replicas_in_sync
    together = replicas * batch_size
    full, rest = np.split(rows, [len(rows) // together * together])
    each = -(-len(rest) // replicas)
    rest = np.concatenate([rest, np.repeat(rows[-1:], each * replicas - len(rest))])

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        own = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * own
        parts = [
            batches_of(some.reshape(-1, replicas, size)[:, first : first + own].ravel(), size)
            for some, size in ((full, batch_size), (rest, each))
            if len(some)
        ]
        return functools.reduce(tf.data.Dataset.concatenate, parts)

    return strategy.distribute_datasets_from_function(of_worker)


def shared_out(batches: tf.data.Dataset, strategy: tf.distribute.Strategy) -> Any:
    """Shares global batches out to replicas, in order, sizes differing by one example at most.

    TensorFlow's own splitting can leave a replica without an example in a last, short batch, and
    batch normalisation of nothing is not a number. Here such a replica repeats one, of weight 0.

    Args:
        batches: of (inputs, targets) or (inputs, targets, weights), the same on every worker;
            inputs an array or a dictionary, weights (n,) above 0. Ragged where examples differ in
            length, such as sections in their spots: at most one then for each replica.
    Returns:
        A distributed dataset of (inputs, targets, weights); weights (n,) float32, 1 where none
        were given, 0 of examples that are repeated.
    """
    replicas = strategy.num_replicas_in_sync
    batches = batches.map(_weighted)
    if replicas == 1:
        return batches

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        own = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * own

        def pieces(inputs: Any, targets: tf.Tensor, weights: tf.Tensor) -> tf.data.Dataset:
            def piece(replica: tf.Tensor) -> tuple[Any, tf.Tensor, tf.Tensor]:
                n = tf.shape(weights, tf.int64)[0]
                start, stop = replica * n // replicas, (replica + 1) * n // replicas
                rows = tf.range(start, tf.maximum(stop, start + 1))
                cut = tf.nest.map_structure(lambda whole: _dense(tf.gather(whole, rows)), inputs)
                counted = tf.gather(weights, rows) * tf.cast(rows < stop, tf.float32)
                return cut, _dense(tf.gather(targets, rows)), counted

            return tf.data.Dataset.range(first, first + own).map(piece)

        return batches.flat_map(pieces).prefetch(tf.data.AUTOTUNE)

    return strategy.distribute_datasets_from_function(of_worker)


@dataclasses.dataclass(frozen=True)
class Steps:
    """What a training does again and again, on all replicas.

    learn: a batch of `shared_out` -> mean loss of the global batch, number of its examples.
    look: a batch -> weights (n,), losses (n,), predictions, targets, of all replicas, in the
        examples' order; of sections, n counts spots.
    end_epoch: number of the epoch's examples, float32 -> nothing; of whole epochs alone.
    """

    learn: Callable
    look: Callable
    end_epoch: Callable


def steps(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    loss: keras.losses.Loss,
    *,
    strategy: tf.distribute.Strategy,
    with_predictions: bool,
    whole_epochs: bool = False,
) -> Steps:
    """Steps of training and of testing, for `tf.function` to compile.

    Args:
        model, optimizer: made in the strategy's scope.
        loss: one value per example by its `call`; over an image they are averaged. The mean of them
            times the examples' weights, and the model's own losses (penalties), are lowered.
        with_predictions: whether the test step gives predictions and targets, too.
        whole_epochs: variables move at the end of an epoch alone, along the mean gradient of all
            its examples, which batches add up.
    """
    sums: list[tf.Variable] = []
    if whole_epochs:
        with strategy.scope():
            sums = [
                tf.Variable(
                    tf.zeros(variable.shape),
                    trainable=False,
                    synchronization=tf.VariableSynchronization.ON_READ,  # a replica adds its own
                    aggregation=tf.VariableAggregation.SUM,
                )
                for variable in model.trainable_variables
            ]

    def losses_of(targets: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
        values = loss.call(tf.cast(targets, predictions.dtype), predictions)
        return tf.reduce_mean(tf.reshape(values, (tf.shape(values)[0], -1)), axis=1)

    def examples_in(weights: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.cast(weights > 0, tf.float32))

    def penalty() -> tf.Tensor:
        return tf.add_n(model.losses) / strategy.num_replicas_in_sync

    def learn(inputs: Any, targets: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        everywhere = tf.distribute.get_replica_context().all_reduce
        n = everywhere(tf.distribute.ReduceOp.SUM, examples_in(weights))
        with tf.GradientTape() as tape:
            # Gradients are summed over replicas: dividing by all examples makes that their mean.
            part = tf.reduce_sum(losses_of(targets, model(inputs, training=True)) * weights) / n
            if model.losses:
                part += penalty()
        gradients = tape.gradient(part, model.trainable_variables)
        if whole_epochs:
            for total, gradient in zip(sums, gradients, strict=True):
                total.assign_add(n * gradient)
        else:
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return everywhere(tf.distribute.ReduceOp.SUM, part), n

    def end(examples: tf.Tensor) -> None:
        means = [total.read_value() / examples for total in sums]
        optimizer.apply_gradients(zip(means, model.trainable_variables, strict=True))
        for total in sums:
            total.assign(tf.zeros(total.shape))

    def look(inputs: Any, targets: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, ...]:
        predictions = model(inputs, training=False)
        if with_predictions and len(predictions.shape) == 3:  # of sections: spot after spot
            weights = tf.repeat(weights, tf.shape(predictions)[1])
            predictions = tf.reshape(predictions, (-1, predictions.shape[-1]))
            targets = tf.reshape(targets, (-1, targets.shape[-1]))
        weighed = (weights, losses_of(targets, predictions))
        return (*weighed, predictions, targets) if with_predictions else weighed

    def learn_everywhere(batch: Any) -> list[tf.Tensor]:
        return [strategy.experimental_local_results(v)[0] for v in strategy.run(learn, args=batch)]

    def look_everywhere(batch: Any) -> list[tf.Tensor]:
        values = strategy.run(look, args=batch)
        alone = strategy.num_replicas_in_sync == 1
        return list(values) if alone else [strategy.gather(value, axis=0) for value in values]

    return Steps(learn_everywhere, look_everywhere, lambda n: strategy.run(end, args=(n,)))


def _weighted(
    inputs: Any, targets: tf.Tensor, weights: tf.Tensor | None = None
) -> tuple[Any, tf.Tensor, tf.Tensor]:
    n = targets.nrows() if isinstance(targets, tf.RaggedTensor) else tf.shape(targets)[0]
    return inputs, targets, tf.ones([n]) if weights is None else weights


def _dense(values: Any) -> tf.Tensor:
    return values.to_tensor() if isinstance(values, tf.RaggedTensor) else values


def _workers(strategy: tf.distribute.Strategy) -> int:
    resolver = strategy.cluster_resolver
    return 1 if resolver is None else len(resolver.cluster_spec().as_dict().get("worker", [""]))


def _check_tf_config() -> None:
    text = os.environ.get("TF_CONFIG")
    if not text:
        raise InputError(
            "strategy 'multiworker' needs the environment variable TF_CONFIG on every machine, "
            f"such as {_TF_CONFIG_EXAMPLE}; strategy 'auto' works without"
        )
    try:
        values = json.loads(text)
        workers = len(values["cluster"]["worker"])
        kind, index = values["task"]["type"], int(values["task"]["index"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"TF_CONFIG cannot be read ({error!r}); it looks like {_TF_CONFIG_EXAMPLE}"
        ) from None
    if kind != "worker" or not 0 <= index < workers:
        raise InputError(
            f"TF_CONFIG: this process is {kind} {index} of {workers} worker(s); "
            f"a worker from 0 to {workers - 1} works"
        )
