"""The status codes that clients get when a call fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import grpc
import tensorflow as tf
from absl import logging

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_MAX_MESSAGE_CHARACTERS = 1000  # gRPC carries messages in headers of a few kilobytes


class RequestError(Exception):
    """A request that cannot be answered."""

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code


def invalid(message: str) -> RequestError:
    """The error for most mistakes in a request."""
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)


def describe(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Code and message for an exception; INTERNAL if the server or a file has a defect."""
    if isinstance(error, RequestError):
        code, message = error.code, str(error)
    elif isinstance(error, tf.errors.OpError):
        code, message = _CODES.get(error.error_code, grpc.StatusCode.INTERNAL), error.message
    else:
        code, message = grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"
    return code, message[:_MAX_MESSAGE_CHARACTERS]


@contextlib.contextmanager
def errors_as_status(context: grpc.ServicerContext) -> Iterator[None]:
    """If the block raises an exception, ends the call with its status code."""
    try:
        yield
        return
    except (RequestError, tf.errors.OpError) as error:
        code, message = describe(error)
    except Exception:
        logging.exception("A call failed by a defect of the server.")
        code, message = grpc.StatusCode.INTERNAL, "The server failed; its log says more."
    context.abort(code, message)
