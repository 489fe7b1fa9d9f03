"""The authors' solver for v1.0 with complex bypass on ImageNet.

sqz-train --config=complex_bypass --workdir=DIR --data_dir=TFDS_DIR

Expect 58.8% top-1 and 82.0% top-5 (the paper's figures).
This project has not run it, because it needs ImageNet and GPUs. As in squeezenet_v1_0, the validation split both
selects the best weights and measures their accuracy.

It starts from the authors' initial weights. With these, activations grow from one complex bypass to the next, and a run
on ten classes at 128 pixels learned nothing (docs/notes.md). If the loss starts far above ln(1000) = 6.9, or stays at
that value, give --bypass_scale=0.1.
"""

import dataclasses

from sqz_keras.architecture.spec import ModelSpec
from trainers.configs import squeezenet_v1_0
from trainers.training.config import TrainConfig


def get_config() -> TrainConfig:
    return dataclasses.replace(squeezenet_v1_0.get_config(), model=ModelSpec("1.0", "complex", conv10_padding=1))
