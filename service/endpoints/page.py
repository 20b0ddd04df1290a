"""GET /: the page where a person tries the service, and /page/: what it is made of.

The files in service/page/ are read once, when the application is made. They are sent with a strict
policy (nothing inline, nothing from elsewhere) and an ETag, so a browser asks again and mostly gets
304: no stale page after an update, and no version in a name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from service.api import Api

FOLDER = Path(__file__).resolve().parent.parent / "page"
INDEX = "index.html"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)


@dataclass(frozen=True)
class Asset:
    """One file of the page, ready to send."""

    content: bytes
    media_type: str
    etag: str

    @classmethod
    def load(cls, file: Path) -> Asset:
        content = file.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        return cls(content, _TYPES[file.suffix], f'"{digest[:32]}"')

    def response(self, request: Request) -> Response:
        """200 with the file, or 304 where the caller has just this one."""
        headers = {
            "ETag": self.etag,
            "Cache-Control": "no-cache",  # keep it, but ask before using it
            "Content-Security-Policy": _POLICY,
        }
        asked = request.headers.get("if-none-match", "")
        if self.etag in (tag.strip().removeprefix("W/") for tag in asked.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)


def routes(_: Api) -> list[Route]:
    assets = {file.name: Asset.load(file) for file in FOLDER.iterdir() if file.suffix in _TYPES}

    async def index(request: Request) -> Response:
        return assets[INDEX].response(request)

    async def part(request: Request) -> Response:
        name = request.path_params["name"]
        if name == INDEX or name not in assets:
            raise HTTPException(404)
        return assets[name].response(request)

    return [
        Route("/", index, methods=["GET"], include_in_schema=False),
        Route("/page/{name}", part, methods=["GET"], include_in_schema=False),
    ]
