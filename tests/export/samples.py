"""A small model to export and serve, and small images to send to it."""

import io

import numpy as np
from PIL import Image

from sqz_keras import Metaparameters, ModelSpec, Preprocessing


def small_spec(**changes) -> ModelSpec:
    net = Metaparameters(num_fire_modules=2, base_e=8, incr_e=8, stem_filters=4, pool_after=(1,))
    fields = {
        "version": None,
        "metaparameters": net,
        "classes": 10,
        "labels": tuple(f"digit {index}" for index in range(10)),
        "input_size": 32,
        "preprocessing": Preprocessing(resize_to=36),
    }
    return ModelSpec(**(fields | changes))


def random_arrays(spec: ModelSpec) -> dict[str, np.ndarray]:
    """Weights with which probabilities differ from class to class and from image to image."""
    generator = np.random.default_rng(7)
    # Pixels of about 60 become activations of about 1; biases are small.
    scales = {"conv1/kernel": 1 / 60, "conv10/kernel": 2.0}
    return {
        name: (
            scales.get(name, 1.0)
            * generator.normal(size=shape)
            * (np.sqrt(2 / np.prod(shape[:-1])) if len(shape) == 4 else 0.1)
        ).astype(np.float32)
        for name, shape in spec.weight_shapes().items()
    }


def random_image(height: int, width: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A smooth random image."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 4), np.uint8)
    image = Image.fromarray(coarse, "CMYK").resize((width, height), Image.Resampling.BICUBIC)
    return image if mode == "CMYK" else image.convert("RGB").convert(mode)


def encode(image: Image.Image, format: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()
