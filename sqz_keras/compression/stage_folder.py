"""The folder of one stage of compression: its request, its checkpoints, and its result."""

from __future__ import annotations

import io
import json
import os
import pathlib
import shutil
import zipfile
from collections.abc import Callable, Mapping

import numpy as np

from sqz_keras.differences import describe_changes
from sqz_keras.files import write_file, write_json

Arrays = dict[str, np.ndarray]
_KEPT_CHECKPOINTS = 2


class StageFolder:
    """Lets a stage that was killed resume, and a finished one return its result at once.

    `config.json` holds the request, `checkpoints/` the state to resume from, `result.npz` the result. Each file appears
    whole or not at all.

    Args:
        workdir: Folder of this stage alone; it is made if it does not exist. None keeps nothing.
        config: Everything that decides the result, as JSON values.

    Raises:
        ValueError: The folder belongs to a stage with another request, and the message says what differs; or its
            `config.json` is damaged.
        OSError: The folder cannot be written to.
    """

    def __init__(self, workdir: str | os.PathLike | None, config: Mapping):
        self._folder = None if workdir is None else pathlib.Path(workdir)
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "config.json"
        config = json.loads(json.dumps(config))
        if not path.exists():
            write_json(path, config)
            return
        try:
            earlier = dict(json.loads(path.read_text("utf-8")))
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}. Choose another workdir, or remove this one.") from error
        changes = describe_changes(earlier, config)
        if changes:
            raise ValueError(
                f"{self._folder} holds a stage of another request: {changes}. Repeat that request, or choose another "
                "workdir."
            )

    def once(self, shapes: Mapping[str, tuple[int, ...]], compute: Callable[[], Arrays]) -> Arrays:
        """The stage's arrays: read if the stage is finished, else computed and stored.

        Args:
            shapes: Shapes of the arrays by name.
            compute: Runs the stage. Its checkpoints are removed afterwards.

        Returns:
            The arrays, in the order of `shapes`.

        Raises:
            ValueError: The stored arrays are damaged or have other shapes.
        """
        if self._folder is not None and self._result_path.exists():
            return self._read_result(shapes)
        arrays = compute()
        if self._folder is not None:
            archive = io.BytesIO()
            np.savez(archive, **arrays)
            write_file(self._result_path, archive.getbuffer())
            shutil.rmtree(self._folder / "checkpoints", ignore_errors=True)
        return {name: arrays[name] for name in shapes}

    def _read_result(self, shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
        try:
            with np.load(self._result_path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            if {name: array.shape for name, array in arrays.items()} != dict(shapes):
                raise ValueError("its arrays are not this model's")
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{self._result_path} is damaged: {error}. Remove it to repeat the stage.") from error
        return {name: arrays[name] for name in shapes}

    def checkpoints(self, checkpoint):
        """The `tf.train.CheckpointManager` of a `tf.train.Checkpoint`, or None if nothing is kept.

        The manager names a checkpoint as its latest only after all files of the checkpoint are written.
        """
        if self._folder is None:
            return None
        import tensorflow as tf

        folder = str(self._folder / "checkpoints")
        return tf.train.CheckpointManager(checkpoint, folder, max_to_keep=_KEPT_CHECKPOINTS)

    @property
    def _result_path(self) -> pathlib.Path:
        return self._folder / "result.npz"
