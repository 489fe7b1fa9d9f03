"""Turns a .sqz file that was sent into the file that a device's runtime loads; numpy is enough, no Keras.

sqz-receive UPDATE.sqz [--base=INSTALLED.sqz] --output=model.tflite [--output=next.sqz ...] [--float16]

Reads a whole file, or applies a delta to its base. Every checksum is verified, and the hashes of the base and of the
weights. The suffix of the output says what is written: .tflite for LiteRT, .onnx, .npz for the arrays alone, or .sqz
for the whole file, on which the next delta can be based. Each file appears whole or not at all.
"""

from __future__ import annotations

from absl import flags

from sqz_keras import command
from sqz_keras.files import check_is_no_input, write_file
from sqz_keras.runtimes.receive import check_output, encode_received
from sqz_keras.weights import sqz


def define_flags() -> None:
    flags.DEFINE_string("base", None, "If UPDATE is a delta: the .sqz file that it is a delta against.")
    flags.DEFINE_multi_string("output", None, "The file to write; repeat the flag for more files.", required=True)
    flags.DEFINE_boolean("float16", False, "Store the kernels of .tflite files in float16, half as large.")


def main(argv) -> None:
    args = flags.FLAGS
    for output in args.output:
        check_output(output)
        check_is_no_input("output", output, {"the update": argv[1], "its base": args.base})
    if args.float16 and not any(output.lower().endswith(".tflite") for output in args.output):
        raise ValueError("--float16 is for .tflite files; leave it out, or add --output=NAME.tflite.")
    model = sqz.read_model(argv[1], args.base)
    # All outputs are encoded before the first is written, because any of them may be refused.
    contents = [encode_received(model, output, float16=args.float16) for output in args.output]
    for output, data in zip(args.output, contents, strict=True):
        write_file(output, data)
        print(f"{output}: {len(data):,} bytes, {model.spec.classes} classes, weights {model.spec.weights_sha256}")


def run() -> None:
    command.run(main, define_flags, __doc__, positional="UPDATE", extras=("receiver",))


if __name__ == "__main__":
    run()
