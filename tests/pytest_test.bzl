"""A rule that runs files of tests by pytest."""

_LAUNCHER = """#!/bin/sh
export PYTHONPATH="$PWD" HOME="$TEST_TMPDIR"
exec {python} -m pytest -m "not large" -p no:cacheprovider --basetemp="$TEST_TMPDIR/pytest" --junitxml="$XML_OUTPUT_FILE" {srcs}
"""

def _pytest_test_impl(ctx):
    launcher = ctx.actions.declare_file(ctx.label.name)
    python = ctx.executable._python
    srcs = " ".join([file.short_path for file in ctx.files.srcs])
    content = _LAUNCHER.format(python = python.short_path, srcs = srcs)
    ctx.actions.write(launcher, content, is_executable = True)
    runfiles = ctx.runfiles([python] + ctx.files.srcs + ctx.files.data)
    return [DefaultInfo(executable = launcher, runfiles = runfiles)]

pytest_test = rule(
    implementation = _pytest_test_impl,
    test = True,
    attrs = {
        "srcs": attr.label_list(
            mandatory = True,
            allow_empty = False,
            allow_files = [".py"],
            doc = "The files of tests; they share one process, as to import TensorFlow takes longer than most tests.",
        ),
        "data": attr.label_list(allow_files = True, doc = "The modules that they import, and what they read."),
        "_python": attr.label(
            default = "@sqz_python//:python",
            allow_single_file = True,
            executable = True,
            cfg = "target",
            doc = "The interpreter of the environment that the workspace names.",
        ),
    },
    doc = "Runs tests in the Python environment that the workspace names. No py_test: the launcher that Bazel 4.2.3 " +
          "writes for one calls `python`, which Debian has not, and tests would find another environment.",
)
