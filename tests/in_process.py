"""Runs commands in this process, so that they share one import of TensorFlow."""

from absl import flags


def run(module, *argv):
    """Calls a command's main, and forgets its flags afterwards."""
    before = set(flags.FLAGS)
    module.define_flags()
    try:
        return module.main(flags.FLAGS(["command", *argv]))
    finally:
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()
