"""How many images the two "imagenet" records classify correctly, resized with and without antialiasing.

    python benchmarks/pretrained.py --image_dir=imagenet_sample

Prints top-1 and top-5 counts. Required on the 200 images of EliSchwartz/imagenet-sample-images, without antialiasing:
135 and 178 for v1.0, 144 and 181 for v1.1, each within 2. The models were trained with Caffe, which did not antialias.
"""

import dataclasses

from absl import flags

import sqz_keras
from sqz_keras import command
from trainers.data.image_reader import class_labels, find_labelled_images
from trainers.evaluation.accuracy import evaluate_images


def define_flags() -> None:
    flags.DEFINE_string("image_dir", None, "Folder of labelled images.", required=True)


def main(argv) -> None:
    del argv
    args = flags.FLAGS
    for version in ("1.0", "1.1"):
        spec, _ = sqz_keras.resolve_model("imagenet", version=version)
        model = sqz_keras.load("imagenet", version=version)
        images = find_labelled_images(args.image_dir, class_labels(spec))
        for antialias in (True, False):
            how = dataclasses.replace(spec.preprocessing, antialias=antialias)
            results, _ = evaluate_images(model, dataclasses.replace(spec, preprocessing=how), images, 32)
            total = results["num_images"]
            top1, top5 = (round(results[f"{name}_accuracy"] * total) for name in ("top1", "top5"))
            print(f"v{version} antialias={antialias}: top-1 {top1} of {total}, top-5 {top5} of {total}")


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
