"""The card of a served model: a description for people, in rows."""

from __future__ import annotations

import json
import os
import pathlib

from export import contract
from sqz_keras.architecture.in_words import describe
from sqz_keras.architecture.spec import MAX_JSON_BYTES, ModelSpec


def read_card(version_folder: str | os.PathLike) -> list[tuple[str, str]]:
    """The rows of the card of a version that `sqz-export` wrote.

    Args:
        version_folder: `<base_path>/<version>`.

    Returns:
        Pairs of a row's name and value.

    Raises:
        ValueError: The folder has no description that `sqz-export` wrote.
    """
    path = pathlib.Path(version_folder, contract.EXTRA_FOLDER, contract.SPEC_NAME)
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"more than {MAX_JSON_BYTES} bytes")
        form = json.loads(path.read_text("utf-8-sig"))
        spec = ModelSpec.from_json(form["model_spec"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a description that sqz-export wrote: {str(error).rstrip('.')}.") from error
    return [
        *describe(spec),
        ("Exported by", f"sqz-keras {form.get(contract.PACKAGE_VERSION_KEY, 'of an unknown version')!s:.40}"),
        ("Weights, sha256", spec.weights_sha256 or "not recorded"),
    ]
