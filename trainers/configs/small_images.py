"""Small images, of 32 to 64 pixels, from scratch: fewer pools, and later ones.

sqz-train --config=small_images --workdir=DIR --dataset=cifar10 --validation_split=test [--input_size=64]

In v1.1, conv1 and each of three pools halve the input, so that conv10 gets a 1x1 map for 32 pixels, and a 3x3 map for
64. Here there are only two pools, after fire3 and fire5, and the maps are 3x3 and 7x7. Images are resized to an eighth
more than the input size, and a random square of the input size is cropped from them. The dataset is the digits, which
stand in for your own: `--dataset=` or `--image_dir=` names another. CIFAR-10 has no validation split. The command above
uses its test split to choose the weights too, so the reported test accuracy is a little too high. Nothing was measured
on CIFAR-10.
"""

from sqz_keras.architecture.spec import ModelSpec, Preprocessing
from trainers.training.config import TrainConfig


def get_config() -> TrainConfig:
    model = ModelSpec("1.1", classes=10, input_size=32, preprocessing=Preprocessing(mode="torch", resize_to=36))
    return TrainConfig(
        model=model.with_net(metaparameters={"pool_after": (3, 5)}),
        dataset="digits",
        solver="modern",
        max_steps=1_200,
        base_learning_rate=0.01,
        warmup_steps=100,
        clip_norm=5.0,
        conv10_stddev=0.1,
        # With few classes, the ReLU after conv10 could otherwise silence a class for good.
        conv10_bias=1.0,
        augmentation="crop",
        global_batch_size=64,
        eval_every_steps=100,
    )
