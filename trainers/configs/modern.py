"""A modern recipe: Nesterov, cosine, warm-up, label smoothing, mixup, moving average, random resized crops.

sqz-train --config=modern --workdir=DIR --data_dir=TFDS_DIR

It trains for 125 epochs of ImageNet. There is no published result for this recipe with SqueezeNet, and this project has
not run it, because it needs ImageNet and GPUs. As in squeezenet_v1_0, the validation split both selects the best
weights and measures their accuracy. To train on your own images, give --image_dir=DIR and suitable values of
--max_steps and --global_batch_size.
"""

from sqz_keras.architecture.spec import ModelSpec
from trainers.training.config import TrainConfig


def get_config() -> TrainConfig:
    return TrainConfig(
        model=ModelSpec("1.1"),
        dataset="imagenet2012",
        test_split="validation",
        solver="modern",
        max_steps=313_000,
        base_learning_rate=0.2,
        warmup_steps=12_500,
        weight_decay=4e-5,
        label_smoothing=0.05,
        mixup_alpha=0.1,
        ema_decay=0.9999,
        augmentation="modern",
    )
