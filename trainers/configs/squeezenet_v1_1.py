"""The authors' solver for v1.1 on ImageNet.

sqz-train --config=squeezenet_v1_1 --workdir=DIR --data_dir=TFDS_DIR

Expect 58.38% top-1 and 81.0% top-5 (the release's figures).
This project has not run it, because it needs ImageNet and GPUs. As in squeezenet_v1_0, the validation split both
selects the best weights and measures their accuracy.
"""

import dataclasses

from sqz_keras.architecture.spec import ModelSpec
from trainers.configs import squeezenet_v1_0
from trainers.training.config import TrainConfig


def get_config() -> TrainConfig:
    return dataclasses.replace(squeezenet_v1_0.get_config(), model=ModelSpec("1.1"))
