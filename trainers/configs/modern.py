"""A modern recipe: Nesterov, cosine, warm-up, label smoothing, mixup, moving average, random resized crops.

sqz-train --config=modern --workdir=DIR --data_dir=TFDS_DIR

125 epochs of ImageNet. Nobody has published its result with this net, and it was not run here: it needs ImageNet and
GPUs. As in squeezenet_v1_0, the accuracy is that of the best look at the very split that is reported. For images
of one's own: --image_dir=DIR, with --max_steps and --global_batch_size to suit.
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
