"""LiteRT in 8 bits and in float32: how often they agree with Keras, and how much faster 8 bits are.

    python benchmarks/litert.py --image_dir=DIR [--model=imagenet] [--threads=2] [--rounds=50]

Every other image calibrates and the rest are compared with Keras, then the other way round; intervals are Wilson's, at
95%. Times are medians for one image, all files in turn in one run, with XNNPACK (the default) and without. Prints
`agreement=` (required: at least 0.94) and `ratio=` (required: at least 2.5). The interpreter is ai-edge-litert's if
that is installed, else TensorFlow's own. `control=` is the ratio of a plain conversion to 8 bits, which depends only
on the processor and the interpreter.
"""

from __future__ import annotations

import pathlib
import statistics
import sys
import time
import warnings

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
from absl import flags

from sqz_keras import command

REQUIRED_AGREEMENT, REQUIRED_RATIO = 0.94, 2.5


def define_flags() -> None:
    command.define_model_flags()
    flags.DEFINE_string("image_dir", None, "Folder of images, at any depth.", required=True)
    flags.DEFINE_integer("images", 200, "At most so many of them.", lower_bound=4)
    flags.DEFINE_integer("threads", 2, "Threads of the interpreter.", lower_bound=1)
    flags.DEFINE_integer("rounds", 50, "How often every file runs.", lower_bound=2)


def main(argv) -> None:
    del argv
    from export.formats import litert_int8, single_file
    from sqz_keras.images.files import find_images
    from sqz_keras.models.squeezenet import build
    from sqz_keras.runtimes import litert_file
    from sqz_keras.runtimes.run import run_litert
    from sqz_keras.weights.resolve import resolve_model
    from trainers.evaluation.metrics import accuracy_fields

    args = flags.FLAGS
    spec, arrays = resolve_model(args.model, version=args.version, bypass=args.bypass)
    images = single_file.read_images(find_images(args.image_dir, args.images), spec)
    expected = single_file.run_keras(build(spec, arrays), spec, images).argmax(axis=1)
    answers = np.empty_like(expected)
    for fold in (0, 1):
        eight = litert_int8.convert(spec, arrays, images[fold::2])
        answers[1 - fold :: 2] = run_litert(eight, images[1 - fold :: 2]).argmax(axis=1)
    fields = accuracy_fields("agreement", int((answers == expected).sum()), len(expected))
    low, high = fields["agreement_interval"]
    plain = convert_plainly(spec, arrays, images[1::2])
    files = {"float32": litert_file.convert(spec, arrays), "8 bits": eight, "plain 8 bits": plain}
    for name, data in files.items():
        print(f"{name}: {len(data):,} bytes")
    print(f"agreement={fields['agreement_accuracy']:.3f} ({low:.3f} to {high:.3f}) (required: {REQUIRED_AGREEMENT})")
    for delegates in (False, True):
        medians = _milliseconds(files, delegates, args.threads, args.rounds)
        times = ", ".join(f"{name} {median:.2f} ms" for name, median in medians.items())
        required = f" (required: {REQUIRED_RATIO})" if delegates else ""
        print(f"{'with' if delegates else 'without'} XNNPACK: {times}")
        ratio, control = (medians["float32"] / medians[name] for name in ("8 bits", "plain 8 bits"))
        print(f"{'' if delegates else 'unaccelerated '}ratio={ratio:.2f}{required} control={control:.2f}")


def convert_plainly(spec, arrays, images) -> bytes:
    """The net in 8 bits as TensorFlow's guide converts it: it is not prepared, and no operation stays in float."""
    import tensorflow as tf

    from export.formats.litert_int8 import quiet
    from sqz_keras.architecture.colours import fold_colours
    from sqz_keras.models.squeezenet import build

    converter = tf.lite.TFLiteConverter.from_keras_model(build(spec, fold_colours(spec, arrays)))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    with quiet():
        return converter.convert()


def _milliseconds(files: dict[str, bytes], delegates: bool, threads: int, rounds: int) -> dict[str, float]:
    runs = {name: _interpreter(data, delegates, threads) for name, data in files.items()}
    generator = np.random.default_rng(0)
    for run in runs.values():
        (input,) = run.get_input_details()
        run.set_tensor(input["index"], generator.uniform(0, 255, input["shape"]).astype(input["dtype"]))
    seconds = {name: [] for name in runs}
    for number in range(rounds + 5):
        for name, run in runs.items():
            start = time.perf_counter()
            run.invoke()
            if number >= 5:  # the first rounds warm up
                seconds[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(taken) for name, taken in seconds.items()}


def _interpreter(data: bytes, delegates: bool, threads: int):
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ModuleNotFoundError:
        import tensorflow as tf

        Interpreter, OpResolverType = tf.lite.Interpreter, tf.lite.experimental.OpResolverType  # noqa: N806
    kinds = {True: OpResolverType.AUTO, False: OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        run = Interpreter(model_content=data, num_threads=threads, experimental_op_resolver_type=kinds[delegates])
    run.allocate_tensors()
    return run


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
