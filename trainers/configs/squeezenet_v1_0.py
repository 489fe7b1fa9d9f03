"""The authors' published solver for v1.0 on ImageNet.

sqz-train --config=squeezenet_v1_0 --workdir=DIR --data_dir=TFDS_DIR

170,000 updates of 512 images are 68 epochs. Expect 57.5% top-1 and 80.3% top-5 (the paper's figures). Not run here:
it needs ImageNet and GPUs. Where memory is short, add --accumulation_steps=16, as the authors did. The best of the
looks at the validation split is kept, and its accuracy on that same split reported, as no other images have labels:
a little too high therefore.
"""

from sqz_keras.architecture.spec import ModelSpec
from trainers.training.config import TrainConfig


def get_config() -> TrainConfig:
    # No other images of ImageNet have labels.
    return TrainConfig(
        model=ModelSpec("1.0", conv10_padding=1),
        dataset="imagenet2012",
        test_split="validation",
    )
