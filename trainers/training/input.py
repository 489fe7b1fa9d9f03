"""The training batches of a run from a given step on, for this worker's replicas."""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow as tf

from sqz_keras.architecture.spec import ModelSpec
from trainers.data.batches import BadImages, training_batches
from trainers.data.source import Source
from trainers.training.config import TrainConfig
from trainers.training.distribute import spread, worker_index


def batches_from(
    config: TrainConfig,
    spec: ModelSpec,
    source: Source,
    strategy: tf.distribute.Strategy,
    bad_images: BadImages,
    step: int,
) -> Iterator[tuple]:
    """Yields the batch of `step` and those after it, spread over the replicas.

    The fast pipeline reads them until an image cannot be decoded. The guarded one, which replaces such images and adds
    their names to `bad_images`, takes over from that batch on.

    Args:
        config: The run's config.
        spec: The model, with the dataset's classes.
        source: The labelled images.
        strategy: The tf.distribute strategy over whose replicas a batch is spread.
        bad_images: Collects the names of images that cannot be decoded.
        step: The number of updates done.
    """
    # Errors that come through a tf.data service do not say what went wrong, so there the guarded pipeline reads all.
    for guarded in (True,) if config.data_service else (False, True):
        try:
            for batch in _worker_batches(config, spec, source, strategy, bad_images, step, guarded):
                yield spread(batch, strategy)
                step += 1
        except (tf.errors.InvalidArgumentError, UnicodeDecodeError):  # the second if the message quotes a short file
            if guarded:
                raise


def _worker_batches(config, spec, source, strategy, bad_images, step: int, guarded: bool) -> tf.data.Dataset:
    """This worker's share of the batches from `step` on."""
    index, workers = worker_index(strategy)
    return training_batches(
        source,
        config.train_split,
        spec,
        batch_size=config.global_batch_size // workers,
        seed=config.seed,
        augmentation=config.augmentation,
        shuffle_buffer_size=config.shuffle_buffer_size,
        start_example=step * config.global_batch_size,
        bad_images=bad_images,
        guarded=guarded,
        num_shards=workers,
        shard_index=index,
        data_service=config.data_service,
    )
