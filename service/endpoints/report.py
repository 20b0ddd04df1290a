"""GET /report: the newest reports of `crisp compare` and of the load test, as a page; GET
/report/load is the latter by itself."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from service.endpoints.page import FOLDER
from service.report import newest_comparisons, newest_load_test

if TYPE_CHECKING:
    from service.api import Api

_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; frame-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
# The load test's report brings its styles and pictures with it, and offers its JSON as a download.
# In the sandbox it is an origin of its own, which runs no script and can load and send nothing.
_LOAD_POLICY = (
    "sandbox allow-downloads; default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "frame-ancestors 'self'"
)


def routes(api: Api) -> list[Route]:
    folder = api.settings.reports

    async def report(_: Request) -> Response:
        html = await asyncio.to_thread(_rendered, folder)
        headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"}
        return HTMLResponse(html, headers=headers)

    async def load(_: Request) -> Response:
        html = await asyncio.to_thread(_load_test, folder)
        if html is None:
            raise HTTPException(404)
        headers = {"Content-Security-Policy": _LOAD_POLICY, "Cache-Control": "no-store"}
        return Response(html, media_type="text/html; charset=utf-8", headers=headers)

    return [
        Route("/report", report, methods=["GET"], include_in_schema=False),
        Route("/report/load", load, methods=["GET"], include_in_schema=False),
    ]


def _rendered(folder: Path | None) -> str:
    found: dict[str, Any] = {"comparisons": [], "load_test": None}
    if folder is not None and folder.is_dir():
        found = {
            "comparisons": newest_comparisons(folder),
            "load_test": newest_load_test(folder),
        }
    # Only the folder's name: where it lies on this machine is nobody's business.
    return str(_template().render(**found, folder=folder.name if folder else None))


def _load_test(folder: Path | None) -> bytes | None:
    file = newest_load_test(folder) if folder is not None and folder.is_dir() else None
    return None if file is None else file.read_bytes()


@functools.cache
def _template() -> Any:
    import jinja2  # BentoML brings it; who never looks at a report need not load it

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html.jinja")
