"""Weights from the Hugging Face Hub: `hf://owner/name/file`, downloaded by huggingface_hub into its own cache."""

from __future__ import annotations

import hashlib
import pathlib
import re

from sqz_keras.extras import needs

PREFIX = "hf://"
_FORM = "hf://owner/name/file, with @revision behind the name and #sha256=64_hex_digits at the end where you want them"
_HANDLE = re.compile(
    r"hf://(?P<repository>[^/@#\s]+/[^/@#\s]+)(?:@(?P<revision>[^/#\s]+))?/(?P<file>[^#\s]+?)"
    r"(?:#sha256=(?P<sha256>[0-9a-fA-F]{64}))?"
)


def fetch(handle: str) -> pathlib.Path:
    """The file of a handle; it is downloaded if the cache of huggingface_hub does not hold it.

    Args:
        handle: `hf://owner/name/file`. `@revision` after the name is a branch, tag or commit, by default "main";
            `#sha256=...` at the end is what the file's hash must be.

    Raises:
        ValueError: The handle has another form, the file has another hash, or the hub has no such file.
        OSError: The hub cannot be reached, and the cache does not hold the file; or the download failed.
        MissingExtraError: huggingface_hub is not installed.
    """
    parts = _HANDLE.fullmatch(handle)
    if parts is None:
        raise ValueError(f"{handle!r} is not a handle of the Hugging Face Hub: expected {_FORM}.")
    with needs("huggingface"):
        import huggingface_hub
        from huggingface_hub import errors
    try:
        path = huggingface_hub.hf_hub_download(parts["repository"], parts["file"], revision=parts["revision"])
    except errors.LocalEntryNotFoundError as error:
        raise OSError(
            f"{handle} is not in the cache, and the Hugging Face Hub cannot be reached. Try again with a network, or "
            "give the path of your copy of the file."
        ) from error
    except (errors.HfHubHTTPError, errors.HFValidationError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(
            f"{handle} cannot be downloaded: {reason} Check owner, name, revision and file; a private repository needs "
            "`hf auth login`."
        ) from error
    except (OSError, ValueError):
        raise
    except Exception as error:  # httpx and hf_xet raise kinds of their own
        raise OSError(f"{handle} could not be downloaded: {error}. Try again, or give the path of a copy.") from error
    path = pathlib.Path(path)
    if parts["sha256"]:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != parts["sha256"].lower():
            raise ValueError(
                f"{handle}: the file's sha256 is {digest}. Do not use it, or correct the hash in the handle."
            )
    return path
