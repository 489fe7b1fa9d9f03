"""The Python environment in which models are exported and tests run."""

# What is installed is part of every action's key: with another TensorFlow, models are exported again.
_LIST = """
import importlib.metadata, platform
print("Python", platform.python_version())
print(*sorted({f"{package.name}=={package.version}" for package in importlib.metadata.distributions()}), sep="\\n")
"""

_LAUNCHER = """#!/bin/sh
{comment}
exec '{python}' "$@"
"""

def _python_environment_impl(repository_ctx):
    folder = repository_ctx.attr.path
    if not folder.startswith("/"):
        # Later versions of Bazel give it; versions before 6 always have a file WORKSPACE.
        if hasattr(repository_ctx, "workspace_root"):
            root = repository_ctx.workspace_root
        else:
            root = repository_ctx.path(Label("@//:WORKSPACE")).dirname
        folder = "%s/%s" % (root, folder)
    python = folder + "/bin/python"
    if not repository_ctx.path(python).exists:
        fail("python_environment: expected a Python environment with sqz-keras's requirements, and there is no " +
             "%s. Make it with `make venv`, or name another by path." % python)
    listed = repository_ctx.execute([python, "-I", "-c", _LIST])
    if listed.return_code != 0:
        fail("python_environment: %s does not run: %s" % (python, listed.stderr))
    comment = "\n".join(["# " + line for line in listed.stdout.strip().split("\n")])

    # A link would not work: Python looks for its environment beside the path that it was called by.
    launcher = _LAUNCHER.format(comment = comment, python = python.replace("'", "'\\''"))
    repository_ctx.file("python", launcher, executable = True)
    repository_ctx.file("BUILD.bazel", "exports_files([\"python\"])\n", executable = False)

python_environment = repository_rule(
    implementation = _python_environment_impl,
    attrs = {
        "path": attr.string(
            default = ".venv",
            doc = "The environment's folder, as `python -m venv` lays it out: absolute, or below the workspace's root.",
        ),
    },
    configure = True,
    local = True,
    doc = "Names an existing Python environment. Only `@sqz_python` is looked for: give it this name. It is looked " +
          "at anew whenever Bazel's server starts, and by `bazel sync --configure`.",
)
