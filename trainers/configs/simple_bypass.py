"""The authors' solver for v1.0 with simple bypass on ImageNet.

sqz-train --config=simple_bypass --workdir=DIR --data_dir=TFDS_DIR

Expect 60.4% top-1 and 82.5% top-5 (the paper's figures).
This project has not run it, because it needs ImageNet and GPUs. As in squeezenet_v1_0, the validation split both
selects the best weights and measures their accuracy.
"""

import dataclasses

from sqz_keras.architecture.spec import ModelSpec
from trainers.configs import squeezenet_v1_0
from trainers.training.config import TrainConfig


def get_config() -> TrainConfig:
    return dataclasses.replace(squeezenet_v1_0.get_config(), model=ModelSpec("1.0", "simple", conv10_padding=1))
