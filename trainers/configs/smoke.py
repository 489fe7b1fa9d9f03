"""A few updates on the digits, to see that everything works.

sqz-train --config=smoke --workdir=DIR

It takes seconds, and the accuracy means nothing.
"""

import dataclasses

from trainers.configs import digits
from trainers.training.config import TrainConfig


def get_config() -> TrainConfig:
    return dataclasses.replace(digits.get_config(), max_steps=10, eval_every_steps=5, checkpoint_every_steps=5)
