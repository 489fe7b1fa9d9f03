"""The page as an ASGI application: its three files, the model's card, and, for a posted image, its answer and map.

It gets its answers from an `export.client.client.Client`, and never opens a file that a request names.
"""

from __future__ import annotations

import ipaddress
import os
import pathlib
import re
import threading
import time
from collections.abc import Awaitable, Callable, Mapping

from absl import logging
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from export import contract, versions
from export.client import images as client_images
from export.client.client import Client, Prediction, ServingError
from export.page.card import read_card
from export.page.explanation import Explainer
from sqz_keras.architecture.spec import imagenet_classes

MAX_IMAGE_BYTES = 32 << 20
MAX_TARGET_BYTES = 2000  # of the path in a request
HEADERS = {
    "Server": "sqz-serve",
    "Connection": "close",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_MAP = re.compile(r"/map/(\d{1,9})")  # of the class with this index


class PageApp:
    """Answers requests for the page; every error is JSON, `{"error": message}`.

    Args:
        client: Asks the server that has the model.
        base_path: Folder of the served model, or None if it is not on this machine. With it, the card shows the whole
            description.
        host: The name or address that the page is served at. Requests for other names are refused.
    """

    def __init__(self, client: Client, base_path: str | os.PathLike | None, host: str):
        self._client, self._base_path, self._host = client, base_path, host
        self._rotating = threading.Lock()  # one image at a time, as a large one takes half a gigabyte
        self._explainer = Explainer()
        self._routes: Mapping[tuple[str, str | re.Pattern], Callable[[Request], Awaitable[Response]]] = {
            **{("GET", path): _file(*file) for path, file in _FILES.items()},
            ("GET", "/card"): self._card,
            ("POST", "/predict"): self._predict,
            ("POST", _MAP): self._map,
        }

    async def __call__(self, scope, receive, send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        except _RequestError as error:
            response = error_response(error.status, str(error))
        except ServingError as error:
            response = error_response(503, f"The model server gives no answer. {error}")
        except Exception:
            logging.exception("The page failed by a defect of its own.")
            response = error_response(500, "The page's server failed; its log says more.")
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        method, target = request.method, request.scope["raw_path"].decode("latin-1")
        if method not in ("GET", "POST"):
            raise _RequestError(501, "Only GET and POST are supported.")
        if len(target) > MAX_TARGET_BYTES:
            raise _RequestError(414, f"A path has at most {MAX_TARGET_BYTES} bytes.")
        self._check_sender(request)
        route = _MAP if _MAP.fullmatch(target) else target
        if (method, route) not in self._routes or request.scope["query_string"]:
            raise _RequestError(404, f"There is no {method} {target[:100]} here.")
        return await self._routes[method, route](request)

    def _check_sender(self, request: Request) -> None:
        host = request.headers.get("host", "")
        if not self._is_own(host):
            raise _RequestError(403, f"The page is not at {host[:100]!r}; open it as http://127.0.0.1 with its port.")
        if request.method == "POST" and request.headers.get("origin", f"http://{host}") != f"http://{host}":
            raise _RequestError(403, "Only this page itself may send images.")  # browsers add an Origin to each POST

    def _is_own(self, name: str) -> bool:
        """Whether a Host header names this server, rather than a foreign name that points here (DNS rebinding).

        Every address is accepted, since nobody can make an address point elsewhere.
        """
        name = re.sub(r":\d{1,5}$", "", name).strip("[]").lower()
        if name in ("localhost", self._host.lower()):
            return True
        try:
            return bool(ipaddress.ip_address(name))
        except ValueError:
            return False

    async def _card(self, request: Request) -> Response:
        del request
        return JSONResponse({"rows": await run_in_threadpool(self._card_rows)}, headers=HEADERS)

    def _card_rows(self) -> list[tuple[str, str]]:
        version = self._version()
        rows = [("Name", self._client.model_name), ("Version served", str(version))]
        try:
            return rows + read_card(self._folders()[version])
        except (KeyError, ValueError):  # the folder is elsewhere, or another program wrote it
            return [*rows, ("Signatures", ", ".join(sorted(self._client.signatures())))]

    def _version(self) -> int:
        """The version that the server answers with now, its newest."""
        version = max(self._client.available_versions(), default=None)
        if version is None:
            raise _RequestError(503, "The model server has no version ready yet.")
        return version

    def _folders(self) -> Mapping[int, pathlib.Path]:
        """The folders of the versions that are on this machine."""
        return versions.list_versions(self._base_path) if self._base_path else {}

    async def _map(self, request: Request) -> Response:
        class_id = int(_MAP.fullmatch(request.scope["raw_path"].decode("latin-1"))[1])
        data = await run_in_threadpool(self._draw_map, await _read_image(request), class_id)
        return Response(data, media_type="image/jpeg", headers=HEADERS)

    def _draw_map(self, data: bytes, class_id: int) -> bytes:
        folder = self._folders().get(self._version())
        if folder is None:
            raise _RequestError(404, "The folder of the served model is not on this machine, so there are no maps.")
        try:
            return self._explainer.draw(folder, data, class_id)
        except ValueError as error:
            raise _RequestError(422, f"There is no map: {error}") from error

    async def _predict(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._classify, await _read_image(request)), headers=HEADERS)

    def _classify(self, data: bytes) -> dict:
        with self._rotating:
            try:
                images = client_images.as_list(data)
            except ValueError as error:
                raise _RequestError(422, str(error)) from error
        start = time.perf_counter()
        (prediction,) = self._client.predict(images)
        milliseconds = 1000 * (time.perf_counter() - start)
        if prediction.status != contract.STATUS_OK:
            raise _RequestError(422, f"This cannot be read: {prediction.status}.")
        # If a version's folder is on this machine, `POST /map/<id>` draws the map of a class.
        return {"top": _top(prediction), "milliseconds": milliseconds, "has_maps": bool(self._folders())}


class _RequestError(Exception):
    """Raised to refuse a request with an HTTP status."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


def error_response(status: int, message: str) -> Response:
    """The answer to a request that is refused or that failed."""
    return JSONResponse({"error": message}, status, headers=HEADERS)


def _file(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = pathlib.Path(__file__).with_name(name).read_bytes()

    async def answer(request: Request) -> Response:
        del request
        return Response(content, media_type=kind, headers=HEADERS)

    return answer


async def _read_image(request: Request) -> bytes:
    if "content-length" not in request.headers:
        raise _RequestError(411, "The request must have a Content-Length.")
    length = int(request.headers["content-length"])  # h11 lets only digits through
    if length > MAX_IMAGE_BYTES:
        async for _ in request.stream():  # a browser reads no answer before it has sent everything
            pass
        raise _RequestError(
            413, f"The file has {length / 1e6:.0f} MB, and the limit is {MAX_IMAGE_BYTES / 1e6:.0f} MB."
        )
    if length == 0:
        raise _RequestError(400, "The file is empty.")
    return await request.body()


def _top(prediction: Prediction) -> list[dict]:
    """The best classes; with wnids if the classes are ImageNet's."""
    classes = imagenet_classes()
    named = list(zip(prediction.class_ids, prediction.classes, prediction.scores, strict=True))
    is_imagenet = len(prediction.probabilities) == len(classes) and all(classes[i][1] == name for i, name, _ in named)
    if not is_imagenet:
        return [{"id": i, "name": name, "score": score} for i, name, score in named]
    return [
        {"id": i, "name": name.replace("_", " "), "wnid": classes[i][0], "score": score} for i, name, score in named
    ]
