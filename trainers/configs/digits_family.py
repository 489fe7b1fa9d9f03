"""The digits at 32 pixels, for any net of the family: the recipe with which all three macroarchitectures learn.

sqz-sweep --space=bypass --sampler=grid --workdir=DIR
sqz-train --config=digits_family --workdir=DIR [--bypass=simple|complex] [--metaparameters=...]

The recipe `digits` does better for the plain net and fails with bypasses: the images are nearly constant, and with
its large inputs a bypass hands that constant on undiminished, until conv10 drowns in it. Here the inputs are small, the
gradients are clipped, and conv10's biases begin at 1, without which classes fall silent in some runs, for good. 1,000
updates are 30 epochs, one and a half minutes on one core.
"""

from sqz_keras.architecture.spec import ModelSpec, Preprocessing
from trainers.training.config import TrainConfig


def get_config() -> TrainConfig:
    return TrainConfig(
        model=ModelSpec("1.0", classes=10, input_size=32, preprocessing=Preprocessing(mode="torch", resize_to=35)),
        dataset="digits",
        solver="modern",
        max_steps=1_000,
        base_learning_rate=0.03,
        warmup_steps=100,
        clip_norm=1.0,
        conv10_stddev=0.05,
        conv10_bias=1.0,
        bypass_scale=0.1,
        augmentation="crop",
        global_batch_size=32,
        eval_every_steps=250,
    )
