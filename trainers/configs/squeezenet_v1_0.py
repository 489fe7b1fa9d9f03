"""The authors' published solver for v1.0 on ImageNet.

sqz-train --config=squeezenet_v1_0 --workdir=DIR --data_dir=TFDS_DIR

It makes 170,000 updates of 512 images, which is 68 epochs. The paper reports 57.5% top-1 and 80.3% top-5 accuracy.
This project has not run it, because it needs ImageNet and GPUs. If memory is short, add --accumulation_steps=16, as the
authors did.

The reported accuracy is slightly too high: ImageNet's test images have no public labels, so the validation split both
selects the best weights and measures their accuracy.
"""

from sqz_keras.architecture.spec import ModelSpec
from trainers.training.config import TrainConfig


def get_config() -> TrainConfig:
    return TrainConfig(
        model=ModelSpec("1.0", conv10_padding=1),
        dataset="imagenet2012",
        test_split="validation",
    )
