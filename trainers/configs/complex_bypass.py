"""The authors' solver for v1.0 with complex bypass on ImageNet.

sqz-train --config=complex_bypass --workdir=DIR --data_dir=TFDS_DIR

Expect 58.8% top-1 and 82.0% top-5 (the paper's figures). Not run here: it needs ImageNet
and GPUs. As in squeezenet_v1_0, the accuracy is that of the best look at the very split that is reported.

It begins from the authors' initial weights, with which the signal grows from one complex bypass to the next. On ten
classes at 128 pixels no class was learnt from there (docs/results.md): where the loss begins far above ln(1000) = 6.9,
or then stays at it, give --bypass_scale=0.1.
"""

import dataclasses

from sqz_keras.architecture.spec import ModelSpec
from trainers.configs import squeezenet_v1_0
from trainers.training.config import TrainConfig


def get_config() -> TrainConfig:
    return dataclasses.replace(squeezenet_v1_0.get_config(), model=ModelSpec("1.0", "complex", conv10_padding=1))
