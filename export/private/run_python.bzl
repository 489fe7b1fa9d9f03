"""Runs a module of the project as an action, in the workspace's Python environment and nothing else."""

PYTHON_ATTRS = {
    "_python": attr.label(
        default = "@sqz_python//:python",
        allow_single_file = True,
        executable = True,
        cfg = "exec",
        doc = "The interpreter of the environment that the workspace names.",
    ),
    "_modules": attr.label(
        default = "//export",
        cfg = "exec",
        doc = "The project's modules.",
    ),
}

# The builder's home folder and GPU must have no influence. Keras uses its defaults if it cannot write its file.
_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "HOME": "/dev/null",
    "KERAS_BACKEND": "tensorflow",
    "KERAS_HOME": "/dev/null",
    "PYTHONHASHSEED": "0",
}

def run_python(ctx, module, arguments, inputs, outputs, progress_message):
    """Runs `python -m module arguments` as an action.

    Args:
      ctx: of a rule with PYTHON_ATTRS.
      module: a module of the project with a main.
      arguments: an Args object.
      inputs: a list of files.
      outputs: a list of declared files.
      progress_message: what Bazel shows while it runs.
    """
    modules = ctx.attr._modules
    interpreter = ctx.actions.args()
    interpreter.add("-P")  # files in the current folder are not modules
    interpreter.add("-m", module)
    ctx.actions.run(
        executable = ctx.executable._python,
        arguments = [interpreter, arguments],
        inputs = depset(inputs, transitive = [modules[DefaultInfo].files]),
        outputs = outputs,
        env = dict(_ENVIRONMENT, PYTHONPATH = modules.label.workspace_root or "."),
        execution_requirements = {"block-network": ""},
        mnemonic = "SqzKeras",
        progress_message = progress_message,
    )
