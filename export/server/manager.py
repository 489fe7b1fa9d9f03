"""Serves the newest version of a model, and replaces it by a newer one without a gap."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator

import grpc
from absl import logging
from tensorflow_serving.apis import get_model_status_pb2, model_pb2

from export import versions, warmup
from export.server.errors import RequestError, describe, invalid
from export.server.large_request import ParsedRequest
from export.server.model import ServedVersion

State = get_model_status_pb2.ModelVersionStatus.State
# A load is retried five times, a minute apart. TensorFlow's model server is started without retries, as they would keep
# the next version waiting there.
MAX_LOADS = 6


def load_version(path: pathlib.Path, name: str, version: int) -> ServedVersion:
    """Loads a version and replays its warm-up requests, so that its first clients do not wait.

    Raises:
        Exception: Of many types: TensorFlow cannot load the folder, or a request cannot be read, or fails.
    """
    model = ServedVersion(path, name, version)
    try:
        for _ in warmup.replay(path, lambda request: model.predict(ParsedRequest(request)), model.classify):
            pass
    except BaseException:
        model.close()
        raise
    return model


@dataclasses.dataclass
class _Loaded:
    """A version that is served, and how many calls use it now."""

    model: ServedVersion
    calls: int = 0


@dataclasses.dataclass
class _Failed:
    """How often a version failed to load, and when the load is retried."""

    loads: int
    next_load: float


class VersionManager:
    """Serves the newest version under a folder, and loads newer ones as they appear.

    A new version is loaded and warmed up beside the old one. The old one is unloaded once the new one is AVAILABLE and
    the old one's calls have ended. If the load fails, the old version stays. If the newest folder is removed, the
    version before it is served.

    Args:
        base_path: The folder of all versions.
        name: The model's name.
        load: Makes a ServedVersion from its folder, the model's name and its number.
        retry_seconds: Seconds between a failed load and its retry.
    """

    def __init__(
        self,
        base_path: str | os.PathLike,
        name: str,
        load: Callable[[pathlib.Path, str, int], ServedVersion] = load_version,
        retry_seconds: float = 60.0,
    ):
        self._base_path, self._name = pathlib.Path(base_path), name
        self._load, self._retry_seconds = load, retry_seconds
        self._changed = threading.Condition()  # guards what follows
        self._loaded: dict[int, _Loaded] = {}
        self._statuses: dict[int, get_model_status_pb2.ModelVersionStatus] = {}
        self._failed: dict[int, _Failed] = {}

    def load_newest(self) -> int:
        """Loads the version to start with, the newest, and returns its number.

        Raises:
            ValueError: There is no version, or the newest cannot be loaded.
        """
        version, path = versions.newest(self._base_path)
        if not self._try_to_load(version, path):
            raise ValueError(
                f"{path} is not a SavedModel that can be loaded ({self._statuses[version].status.error_message:.300}). "
                "Export the model again as a new version, or remove that folder."
            )
        return version

    def poll(self) -> None:
        """Loads and unloads versions to match the folder. It must not be called by two threads at once."""
        if not self._base_path.is_dir():
            return  # it may be unreachable for a while: the loaded versions stay
        folders = versions.list_versions(self._base_path)
        self._failed = {version: failed for version, failed in self._failed.items() if version in folders}
        newest = max(folders, default=None)
        is_due = newest is not None and newest not in self._loaded and self._is_due(newest)
        if is_due and self._try_to_load(newest, folders[newest]):
            print(f"Version {newest} of {self._name} is served", flush=True)
        if newest is None or newest in self._loaded:
            for version in sorted(set(self._loaded) - {newest}):
                self._unload(version)

    def close(self) -> None:
        """Unloads everything, after the running calls have ended."""
        for version in sorted(self._loaded):
            self._unload(version)

    @contextlib.contextmanager
    def lease(self, requested: model_pb2.ModelSpec) -> Iterator[ServedVersion]:
        """The version that a request names, or the newest if it names none. It stays loaded while the block runs.

        Raises:
            RequestError: There is no such model or version.
        """
        with self._changed:
            loaded = self._find(requested)
            loaded.calls += 1
        try:
            yield loaded.model
        finally:
            with self._changed:
                loaded.calls -= 1
                self._changed.notify_all()

    def any_available(self) -> bool:
        """Whether a version is loaded."""
        return bool(self._loaded)

    def statuses(self, requested: model_pb2.ModelSpec) -> list[get_model_status_pb2.ModelVersionStatus]:
        """The state of the version that a request names, or the states of all versions so far, newest first.

        Raises:
            RequestError: There is no such model or version.
        """
        with self._changed:
            numbers = sorted(self._statuses, reverse=True) if requested.name == self._name else []
            if requested.HasField("version"):
                numbers = [number for number in numbers if number == requested.version.value]
            if not numbers:
                raise self._not_found(requested)
            return [self._statuses[number] for number in numbers]

    def _find(self, requested: model_pb2.ModelSpec) -> _Loaded:
        if not requested.name:
            raise invalid("The request's model_spec has no name.")
        if requested.name == self._name and requested.WhichOneof("version_choice") == "version_label":
            raise invalid(f"Unrecognized servable version label: {requested.version_label:.100}.")
        version = requested.version.value if requested.HasField("version") else max(self._loaded, default=None)
        if requested.name != self._name or version not in self._loaded:
            raise self._not_found(requested)
        return self._loaded[version]

    def _not_found(self, requested: model_pb2.ModelSpec) -> RequestError:
        version = f", version {requested.version.value}," if requested.HasField("version") else ""
        loaded = ", ".join(map(str, sorted(self._loaded))) or "none"
        return RequestError(
            grpc.StatusCode.NOT_FOUND,
            f"Model {requested.name!r:.100}{version} not found; this server has {self._name!r}, versions: {loaded}.",
        )

    def _is_due(self, version: int) -> bool:
        failed = self._failed.get(version)
        return failed is None or (failed.loads < MAX_LOADS and time.monotonic() >= failed.next_load)

    def _try_to_load(self, version: int, path: pathlib.Path) -> bool:
        self._set_status(version, State.LOADING)
        try:
            model = self._load(path, self._name, version)
        except Exception as error:  # TensorFlow raises many kinds for a damaged folder
            loads = self._failed[version].loads + 1 if version in self._failed else 1
            self._failed[version] = _Failed(loads, time.monotonic() + self._retry_seconds)
            logging.warning("Version %d of %s cannot be loaded: %s", version, self._name, error)
            self._set_status(version, State.END, error)
            return False
        self._failed.pop(version, None)
        with self._changed:
            self._loaded[version] = _Loaded(model)
        self._set_status(version, State.AVAILABLE)
        return True

    def _unload(self, version: int) -> None:
        with self._changed:
            loaded = self._loaded.pop(version)
        self._set_status(version, State.UNLOADING)
        with self._changed:
            self._changed.wait_for(lambda: not loaded.calls)
        loaded.model.close()
        self._set_status(version, State.END)

    def _set_status(self, version: int, state: int, error: Exception | None = None) -> None:
        status = get_model_status_pb2.ModelVersionStatus(version=version, state=state)
        if error is not None:
            code, status.status.error_message = describe(error)
            status.status.error_code = code.value[0]
        with self._changed:
            self._statuses[version] = status
