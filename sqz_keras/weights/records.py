"""The table of pretrained weights: each file's URL, hash, model and published accuracy."""

from __future__ import annotations

import dataclasses
import hashlib

from sqz_keras.architecture.spec import ModelSpec, Preprocessing, imagenet_wnids

_GITHUB = "https://raw.githubusercontent.com"


@dataclasses.dataclass(frozen=True)
class Record:
    r"""One file of pretrained weights, with its evidence.

    Args:
        name: Name that `weights=` and `--model=` take.
        filename: Name of the file in the cache; its suffix selects the reader.
        url: URL of the download, or None if no single file is published.
        hash_kind: Kind of the digest: "sha256", "sha256_prefix" (torchvision's file names) or "git_blob_sha1" (sha1 of
            "blob <size>\0" + content), or None without a url.
        digest: Hash of the file, hexadecimal.
        megabytes: Size of the download, rounded up.
        licence: Licence of the weights.
        spec: The model that the weights belong to.
        top1_accuracy: Published top-1 accuracy on ILSVRC2012's validation set, a fraction, or None.
        top5_accuracy: Published top-5 accuracy, likewise.
        source: Source of the accuracies.
    """

    name: str
    filename: str
    url: str | None
    hash_kind: str | None
    digest: str | None
    megabytes: float
    licence: str
    spec: ModelSpec
    top1_accuracy: float | None
    top5_accuracy: float | None
    source: str

    def verifies(self, content: bytes) -> bool:
        """Whether these are the bytes that the record describes.

        Args:
            content: The whole file.

        Returns:
            True if the hash is the record's.
        """
        if self.hash_kind == "git_blob_sha1":
            return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == self.digest
        if self.hash_kind == "sha256_prefix":
            return hashlib.sha256(content).hexdigest().startswith(self.digest)
        return self.hash_kind == "sha256" and hashlib.sha256(content).hexdigest() == self.digest


# Caffe and Gluon resize with OpenCV, without antialiasing; torchvision resizes with Pillow, with antialiasing.
AUTHORS = Preprocessing("authors", "stretch", 256, antialias=False)
TORCHVISION = Preprocessing("torch", "shortest_side", 256, antialias=True)
GLUON = Preprocessing("torch", "shortest_side", 256, antialias=False)


def authors_preprocessing(size: int) -> Preprocessing:
    """The authors' preprocessing for an input of `size` pixels; below ImageNet's sizes nothing is cropped."""
    return dataclasses.replace(AUTHORS, resize_to=max(size, AUTHORS.resize_to) if size >= 224 else size)


def _imagenet(version: str, bypass: str | None = None, preprocessing: Preprocessing = AUTHORS, **fields) -> ModelSpec:
    return ModelSpec(version, bypass, labels=imagenet_wnids(), preprocessing=preprocessing, **fields)


RECORDS = (
    Record(
        name="squeezenet1.0_deep_compression",
        filename="compressed_SqueezeNet.net",
        url=f"{_GITHUB}/songhan/SqueezeNet-Deep-Compression/fb13faa2cf121ced9999f8a9d538ec6c56084733/compressed_SqueezeNet.net",
        hash_kind="sha256",
        digest="e4ab6960ae8cd81505e1c2136921201507e930966c53deaf15862a395b3a3261",
        megabytes=0.7,
        licence="BSD",
        spec=_imagenet(
            "1.0", conv10_padding=1, weights_sha256="d387e1102b155e7c430aeca840c056324a43997e75326b86af85eccef39cd71c"
        ),
        top1_accuracy=0.575,
        top5_accuracy=0.803,
        source="arXiv 1602.07360, Table 2",
    ),
    Record(
        name="squeezenet1.1_authors",
        filename="SqueezeNet_fp16.onnx",
        url=f"{_GITHUB}/microsoft/Windows-Machine-Learning/155b5eeb1f48b49235f31ef3a68db0bd8707ce89/SharedContent/models/SqueezeNet_fp16.onnx",
        hash_kind="sha256",
        digest="21f25e3d9254af93e6218a359469fac714a017b3f9035c0f5c4acbf9a3ff7233",
        megabytes=2.5,
        licence="MIT",
        spec=_imagenet("1.1", weights_sha256="c22c5d3c046de4acea75944097e5e4bf6927d8ee8f66c65b8df5a82eb016e77a"),
        top1_accuracy=0.5838,
        top5_accuracy=0.810,
        source="the authors' release, before its rounding to float16",
    ),
    Record(
        name="squeezenet1.0_authors",
        filename="squeezenet_v1.0.caffemodel",
        url=f"{_GITHUB}/forresti/SqueezeNet/master/SqueezeNet_v1.0/squeezenet_v1.0.caffemodel",
        hash_kind="git_blob_sha1",
        digest="a381d848b43d7048c3b362238ece2386c21d6ff0",
        megabytes=5.0,
        licence="BSD",
        spec=_imagenet("1.0", conv10_padding=1),
        top1_accuracy=0.5768,
        top5_accuracy=0.8038,
        source="the authors' release",
    ),
    Record(
        name="squeezenet1.1_authors_caffe",
        filename="squeezenet_v1.1.caffemodel",
        url=f"{_GITHUB}/forresti/SqueezeNet/master/SqueezeNet_v1.1/squeezenet_v1.1.caffemodel",
        hash_kind="git_blob_sha1",
        digest="9d2fc33abf653a6e8b2ee6cc63ede0e72ec67f44",
        megabytes=5.0,
        licence="BSD",
        spec=_imagenet("1.1"),
        top1_accuracy=0.5838,
        top5_accuracy=0.810,
        source="the authors' release",
    ),
    Record(
        name="squeezenet1.0_simple_bypass",
        filename="SqueezeNet_residual_top1_0.6038_top5_0.8250.caffemodel",
        url=f"{_GITHUB}/songhan/SqueezeNet-Residual/master/SqueezeNet_residual_top1_0.6038_top5_0.8250.caffemodel",
        hash_kind="git_blob_sha1",
        digest="f9d4678b926a742b6dea15e1c5ec60291a45d018",
        megabytes=5.0,
        licence="see its repository",
        spec=_imagenet("1.0", "simple", conv10_padding=1),
        top1_accuracy=0.6038,
        top5_accuracy=0.8250,
        source="the authors' release",
    ),
    Record(
        name="squeezenet1.0_dsd",
        filename="DSD_SqueezeNet_top1_0.617579_top5_0.834742.caffemodel",
        url=f"{_GITHUB}/songhan/SqueezeNet-DSD-Training/master/DSD_SqueezeNet_top1_0.617579_top5_0.834742.caffemodel",
        hash_kind="git_blob_sha1",
        digest="ffce3635e4a837e7bc783fea3f48fcc48a1e93a6",
        megabytes=5.0,
        licence="see its repository",
        spec=_imagenet("1.0", conv10_padding=1),
        top1_accuracy=0.6176,
        top5_accuracy=0.8347,
        source="the authors' release (dense-sparse-dense training)",
    ),
    Record(
        name="squeezenet1.0_torchvision",
        filename="squeezenet1_0-b66bff10.pth",
        url="https://download.pytorch.org/models/squeezenet1_0-b66bff10.pth",
        hash_kind="sha256_prefix",
        digest="b66bff10",
        megabytes=4.8,
        licence="BSD-3-Clause (torchvision)",
        spec=_imagenet("1.0", input_size=224, preprocessing=TORCHVISION),
        top1_accuracy=0.58092,
        top5_accuracy=0.80420,
        source="torchvision",
    ),
    Record(
        name="squeezenet1.1_torchvision",
        filename="squeezenet1_1-b8a52dc0.pth",
        url="https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
        hash_kind="sha256_prefix",
        digest="b8a52dc0",
        megabytes=4.8,
        licence="BSD-3-Clause (torchvision)",
        spec=_imagenet("1.1", input_size=224, preprocessing=TORCHVISION),
        top1_accuracy=0.58178,
        top5_accuracy=0.80624,
        source="torchvision",
    ),
    Record(
        name="squeezenet1.1_gluon",
        filename="squeezenet1.1_gluon",
        url=None,
        hash_kind=None,
        digest=None,
        megabytes=5.0,
        licence="Apache 2.0",
        spec=_imagenet(
            "1.1",
            input_size=224,
            preprocessing=GLUON,
            weights_sha256="fb0b5409dbdb20f7970a5d3f6843633f677c473d39ce959c1f7f9cb8f167738f",
        ),
        top1_accuracy=None,
        top5_accuracy=None,
        source="GluonCV's model zoo; a folder of .npy files to be given as a path",
    ),
)

# What weights="imagenet" means for each (version, bypass).
IMAGENET = {
    ("1.0", None): "squeezenet1.0_deep_compression",
    ("1.1", None): "squeezenet1.1_authors",
    ("1.0", "simple"): "squeezenet1.0_simple_bypass",
}


def get_record(name: str) -> Record:
    """The record of this name.

    Args:
        name: One of `list_records()`.

    Returns:
        Where the file is, its hash, its licence, its published accuracy, and the model's description.

    Raises:
        ValueError: There is no such record; the message lists the names.
    """
    for record in RECORDS:
        if record.name == name:
            return record
    raise ValueError(f"No pretrained weights are called {name!r}; there are {', '.join(list_records())}.")


def list_records() -> tuple[str, ...]:
    """The names of all pretrained records.

    Returns:
        Names that `weights=`, `--model=` and `get_record` take.
    """
    return tuple(record.name for record in RECORDS)
