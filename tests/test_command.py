import os
import re
import signal
import subprocess
import sys

import pytest

SCRIPT = """
import sys
from absl import flags
from sqz_keras import command
sys.argv = ["bin/sqz-thing", *sys.argv[1:]]

def main(argv):
    if flags.FLAGS.fail:
        raise {"value": ValueError("what came"), "os": OSError("no disk"), "defect": KeyError("defect"),
               "ctrl-c": KeyboardInterrupt(), "extra": ModuleNotFoundError(name="keras.src"),
               "module": ModuleNotFoundError(name="trainers.nothing")}[flags.FLAGS.fail]
    return 3

def define_flags():
    flags.DEFINE_string("fail", "", "How to fail.")
    flags.DEFINE_integer("steps", 1, "How many.")

command.run(main, define_flags, "Does a thing.")
"""


def run(*arguments):
    return subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "status", "errors"),
    [
        ([], 3, ""),
        (["--fail=value"], 1, "sqz-thing: what came\n"),
        (["--fail=os"], 1, "sqz-thing: no disk\n"),
        (
            ["--fail=extra"],
            1,
            "sqz-thing: needs the package keras; install it with: pip install 'sqz-keras[tensorflow]', "
            "'sqz-keras[jax]' or 'sqz-keras[torch]'\n",
        ),
        (["--fail=ctrl-c"], 130, "\nsqz-thing: interrupted\n"),
        (
            ["--fial=os"],
            1,
            "sqz-thing: Unknown command line flag 'fial'. Did you mean: fail ? --help lists the flags.\n",
        ),
        (
            ["--steps=3 kB"],
            1,
            "sqz-thing: flag --steps=3 kB: expected a whole number. --help lists the flags.\n",
        ),
        (["b"], 1, "sqz-thing: Unexpected arguments: b. Every option is a --flag. --help lists the flags.\n"),
    ],
)
def test_what_a_user_can_mend_is_one_line(arguments, status, errors):
    result = run(*arguments)
    assert (result.returncode, result.stderr) == (status, errors)


def test_a_command_may_need_another_extra_than_most():
    script = SCRIPT.replace('"Does a thing.")', '"Does a thing.", extras=("serve",))')
    result = subprocess.run([sys.executable, "-c", script, "--fail=extra"], capture_output=True, text=True, check=False)
    assert "'sqz-keras[serve]'" in result.stderr


@pytest.mark.parametrize(("failure", "error"), [("defect", "KeyError"), ("module", "ModuleNotFoundError")])
def test_a_defect_shows_its_traceback(failure, error):
    result = run(f"--fail={failure}")
    assert result.returncode == 1
    assert "Traceback" in result.stderr and error in result.stderr


@pytest.mark.parametrize(("given", "used"), [({}, "1"), ({"TF_ENABLE_ONEDNN_OPTS": "0"}, "0")])
def test_tensorflow_uses_onednn_unless_the_environment_says_otherwise(given, used):
    script = SCRIPT.replace("return 3", "import os; print(os.environ['TF_ENABLE_ONEDNN_OPTS'])")
    env = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"} | given
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env)
    assert result.stdout == f"{used}\n"


def test_what_the_terminal_cannot_show_is_escaped():
    """File names need not be valid text, and labels may have characters that a terminal lacks."""
    script = SCRIPT.replace("def main(argv):", "def main(argv):\n    print(flags.FLAGS.fail); return")
    for encoding, name, shown in (("utf-8", b"caf\xe9", b"caf\\udce9\n"), ("ascii", "é".encode(), b"\\xe9\n")):
        env = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "1"}
        result = subprocess.run([sys.executable, "-c", script, b"--fail=" + name], capture_output=True, env=env)
        assert (result.returncode, result.stdout) == (0, shown), result.stderr


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_has_seen_enough_ends_the_command_without_a_message(lines):
    script = SCRIPT.replace("return 3", f"for line in range({lines}): print('a line of output')")
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == (b"", 128 + signal.SIGPIPE)


def test_a_command_needs_no_output():
    script = SCRIPT.replace("return 3", "print('a line of output')")
    result = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-c", script], capture_output=True)
    assert (result.returncode, result.stderr) == (0, b"")


def test_the_home_folder_is_expanded_in_flags(tmp_path):
    """The shell leaves the ~ of --flag=~/path alone."""
    script = SCRIPT.replace(
        "def main(argv):", "def main(argv):\n    print(flags.FLAGS.fail, flags.FLAGS.more, argv[1:]); return"
    )
    script = script.replace(
        'flags.DEFINE_integer("steps", 1, "How many.")',
        'flags.DEFINE_multi_string("more", None, "More.")',
    ).replace('"Does a thing.")', '"Does a thing.", positional="FILE", repeated=True)')
    arguments = ["--fail=~/x", "--more=~/a", "--more=b~", "~/c"]
    result = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"HOME": "/home/me"},
    )
    assert result.stdout == "/home/me/x ['/home/me/a', 'b~'] ['/home/me/c']\n"


@pytest.mark.parametrize(("flags", "line"), [([], "a warning"), (["--verbosity=1"], "W.*] a warning")])
def test_a_warning_is_a_line_like_others(flags, line):
    script = SCRIPT.replace("return 3", "from absl import logging; logging.warning('a warning')")
    result = subprocess.run([sys.executable, "-c", script, *flags], capture_output=True, text=True, check=True)
    assert re.fullmatch(line, result.stderr.strip())


def test_help_is_the_commands_own():
    shown = run("--help").stdout
    assert shown.startswith("Does a thing.")
    assert "--fail: How to fail." in shown
    assert "pdb" not in shown


def test_required_flags_are_named():
    script = SCRIPT.replace('"How to fail."', '"How to fail.", required=True')
    script = script.replace('DEFINE_string("fail", ""', 'DEFINE_string("fail", None')
    script = script.replace('1, "How many."', 'None, "How many.", required=True')
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    error = "sqz-thing: --fail is required. --steps is required. --help lists the flags.\n"
    assert (result.returncode, result.stderr) == (1, error)


def test_a_command_may_take_one_argument():
    script = SCRIPT.replace('"Does a thing.")', '"Does a thing.", positional="FILE")')

    def run(*arguments):
        result = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
        return result.returncode, result.stdout + result.stderr

    assert run("a.sqz") == (3, "")
    for arguments, message in (((), "Which FILE?"), (("a.sqz", "b.sqz"), "Unexpected arguments: b.sqz.")):
        status, output = run(*arguments)
        assert status == 1 and message in output
