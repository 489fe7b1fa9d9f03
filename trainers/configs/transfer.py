"""From the authors' v1.1 weights to other classes: first conv10 alone, then everything.

sqz-train --config=transfer --workdir=DIR --image_dir=IMAGES

IMAGES holds `train/` and `val/`, or only class folders; a fifth of each class is then used for validation. Classes
whose labels are ImageNet wnids keep their weights of conv10. 250 updates took 5 minutes on 2 cores and gave 95.8% top-1
accuracy on the 1,000 validation images of a subset of Imagenette.
"""

from sqz_keras.architecture.spec import ModelSpec
from trainers.training.config import TrainConfig


def get_config() -> TrainConfig:
    return TrainConfig(
        model=ModelSpec("1.1"),
        image_dir="images",
        # Evaluated once, at the end, so that it chooses nothing.
        test_split="validation",
        weights="squeezenet1.1_authors",
        frozen_steps=20,
        max_steps=250,
        base_learning_rate=0.002,
        global_batch_size=64,
        eval_every_steps=250,
        checkpoint_every_steps=25,
    )
