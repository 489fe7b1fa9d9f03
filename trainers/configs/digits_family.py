"""The digits at 32 pixels: a recipe that works for the plain network and for both kinds of bypass.

sqz-sweep --space=bypass --sampler=grid --workdir=DIR
sqz-train --config=digits_family --workdir=DIR [--bypass=simple|complex] [--metaparameters=...]

For the plain network, `digits` is more accurate, but with bypasses it learns nothing. The images are nearly constant,
and `digits` uses inputs of a large scale. A bypass carries this large constant through to conv10, where it outweighs
the differences between images. Here the inputs are small and the gradients are clipped. conv10's biases start at 1;
when they start at 0, some runs permanently lose classes to the ReLU after conv10.

1,000 updates are 30 epochs and take one and a half to three and a half minutes on one core (docs/results.md).
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
