"""How near the forecast of `sqz-compress --method=quantize` comes to the result.

    python experiments/forecast.py --model=MODEL --image_dir=DIR [--images=800] [--calibration_images=100]

Takes images evenly from DIR, at any depth. Some of them calibrate. For each share of answers in the forecast, the model
is quantised to the size of the forecast, and the share is measured on the other images. Prints both, in Markdown.
"""

from __future__ import annotations

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from absl import flags

from sqz_keras import command


def define_flags() -> None:
    command.define_model_flags()
    flags.DEFINE_string("image_dir", None, "Folder of images, at any depth.", required=True)
    flags.DEFINE_integer("images", 800, "Images to take.", lower_bound=2)
    flags.DEFINE_integer("calibration_images", 100, "Images among them that calibrate.", lower_bound=1)


def main(argv) -> None:
    del argv
    from sqz_keras.compression.quantize import Quantizer
    from sqz_keras.compression.size_search import TooFewBytesError
    from sqz_keras.images.files import find_images
    from sqz_keras.weights.resolve import resolve_model
    from trainers.compression.quantization import FORECAST_SHARES
    from trainers.data.image_reader import read_inputs
    from trainers.evaluation.agreement import compare_models
    from trainers.progress import say

    args = flags.FLAGS
    spec, arrays = resolve_model(args.model, version=args.version, bypass=args.bypass)
    paths = find_images(args.image_dir, args.images)
    every = max(2, len(paths) // args.calibration_images)
    images = read_inputs(paths[::every][: args.calibration_images], spec)
    others = read_inputs([path for index, path in enumerate(paths) if index % every], spec)
    quantizer = Quantizer(spec, arrays, images, report=say)
    print(f"{len(images)} images calibrate, {len(others)} others evaluate; sizes are those of the weights")
    print("| bytes | forecast | agreement | interval |\n|---|---|---|---|")
    for share in FORECAST_SHARES:
        size = quantizer.estimate_size(share)
        if size == quantizer.least_estimate:
            print(f"| {size:,} | none | | |")
            continue
        try:
            quantized = quantizer.to_size(size)
        except TooFewBytesError:  # in very small networks
            print(f"| {size:,} | {share:.0%} | too few bytes | |")
            continue
        batches = ((others[start : start + 32], None) for start in range(0, len(others), 32))
        _, fields = compare_models(spec, [arrays, quantized], batches)
        low, high = fields["agreement_interval"]
        print(f"| {size:,} | {share:.0%} | {fields['agreement']:.1%} | {100 * low:.1f} to {100 * high:.1f} |")


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
