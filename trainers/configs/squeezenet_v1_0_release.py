"""The solver of the authors' released v1.0, as in its training log: rate 0.08, power 0.5, 85,000 updates of 1,024.

sqz-train --config=squeezenet_v1_0_release --workdir=DIR --data_dir=TFDS_DIR

85,000 updates of 1,024 images are 68 epochs. Expect 57.68% top-1 and 80.38% top-5 (the release's figures).
This project has not run it, because it needs ImageNet and GPUs. As in squeezenet_v1_0, the validation split both
selects the best weights and measures their accuracy.
"""

import dataclasses

from trainers.configs import squeezenet_v1_0
from trainers.training.config import TrainConfig


def get_config() -> TrainConfig:
    return dataclasses.replace(
        squeezenet_v1_0.get_config(), base_learning_rate=0.08, power=0.5, max_steps=85_000, global_batch_size=1_024
    )
