"""Every error that a caller can get: status, code, and what it means.

The codes are words for programs, and stay. /docs.json lists them at each endpoint; a test holds the
list against the sources.
"""

from __future__ import annotations

CODES: dict[int, dict[str, str]] = {
    400: {
        "invalid_json": "The body is no JSON, or holds what JSON has not, such as NaN.",
        "incomplete_body": "The connection was closed before the body was complete.",
        "invalid_http": "This is no HTTP/1.1 request.",
    },
    401: {
        "no_key": "There is no `Authorization: Bearer KEY`, and this service asks for one.",
        "unknown_key": "The key is mistyped or revoked.",
    },
    403: {"admin_only": "The key may not do this, or nobody may, for there are no keys."},
    404: {"not_found": "There is no such path."},
    405: {"method_not_allowed": "The path takes another method: see Allow."},
    408: {
        "incomplete_headers": "The headers did not come in time.",
        "incomplete_body": "The body did not come in time.",
    },
    409: {
        "reload_in_progress": "The models are being loaded already.",
        "models_refused": "The new models are no good; the old ones go on answering.",
        "one_of_several": "Several processes serve under `bentoml serve`: send it SIGHUP.",
    },
    413: {
        "body_too_large": "The body has more bytes than one may have.",
        "text_too_long": "A text has more tokens than the model reads, and `truncate` is off.",
    },
    415: {
        "unsupported_media_type": "The body is not announced as application/json.",
        "unsupported_encoding": "The body is announced as compressed.",
    },
    421: {"unknown_host": "The request is for a host that this service does not answer to."},
    422: {
        "invalid_request": "The JSON is not what is asked for; `field` says where.",
        "empty_text": "A text holds nothing but blanks.",
        "unreadable_text": "A text holds half a surrogate pair or a NUL character.",
        "pair": "Two strings in `inputs` are a pair, which the models do not read.",
        "too_many_texts": "There are more texts than one request may have.",
        "unknown_variant": "There is no model of this name.",
    },
    429: {
        "rate_limited": "The key asks more often than it may: see Retry-After.",
        "overloaded": "The wait would be too long, for others were before: see Retry-After.",
        "queue_full": "There is no room for these texts beside those that wait.",
    },
    431: {"headers_too_large": "The headers have more bytes than they may have."},
    500: {"internal_server_error": "The service failed on this request; its log says why."},
    503: {
        "overloaded": "No turn came in time: see Retry-After.",
        "too_many_connections": "All connections are in use: see Retry-After.",
    },
    504: {"timeout": "The model had begun, and did not end in time."},
}
