"""What commands print with the backend that is installed: `python -m tests.models.commands FOLDER`, as JSON.

FOLDER holds `net.sqz`, `v1_1.sqz` and `photos/`; files go to `FOLDER/of_<backend>/`.
"""

import contextlib
import importlib
import io
import json
import os
import pathlib
import sys

from sqz_keras.backend import import_keras
from tests import in_process

PHOTOS = ("n02504013_Indian_elephant.JPEG", "n01440764_tench.JPEG")
COMMANDS = {
    "classify": "sqz_keras.cli.classify photos/{0} photos/{1}",
    "evaluate": "trainers.evaluate --image_dir=photos",
    "summary": "sqz_keras.cli.summary --model=net.sqz",
    "inspect": "sqz_keras.cli.inspect net.sqz",
    "lossless": "trainers.compress --model=net.sqz --output=of_{backend}/lossless.sqz",
    "kmeans": "trainers.compress --model=v1_1.sqz --method=kmeans --bits=4 --output=of_{backend}/kmeans.sqz "
    "--evaluation_dir=photos",
}


def printed(command: str) -> str:
    """What a command prints."""
    module, *arguments = command.split()
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert not in_process.run(importlib.import_module(module), *arguments)
    return output.getvalue()


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    backend = import_keras().backend.backend()
    pathlib.Path(f"of_{backend}").mkdir()
    answers = {name: printed(command.format(*PHOTOS, backend=backend)) for name, command in COMMANDS.items()}
    print(json.dumps(answers))
