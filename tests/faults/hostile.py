"""Sends every request of a corpus of malformed and hostile ones to a real server, byte by byte.

    python tests/faults/hostile.py

Prints how many there were and what they got. Fails where one got 500, no answer though there was
something to answer, an answer without the one error shape, or where the service is not the same
afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from fault_server import Served, good_answer, serve

POSTS = ("/predict", "/compare", "/hf", "/explain")
_DEEP = 100_000


@dataclass(frozen=True)
class Case:
    """Bytes to send, and whether silence is an answer to them."""

    name: str
    sent: bytes
    may_be_silent: bool = False


def bodies() -> Iterator[tuple[str, bytes]]:
    """Bodies that are no request, or one that is hard to digest."""
    field = b'{"texts": [%s], "inputs": [%s]}'
    yield from (
        ("empty", b""),
        ("blank", b" \t\r\n"),
        ("null", b"null"),
        ("number", b"1e999"),
        ("many digits", b'{"texts": [' + b"9" * 5000 + b"]}"),
        ("NaN", b'{"texts": NaN}'),
        ("Infinity", b'{"texts": [-Infinity]}'),
        ("deep lists", b"[" * _DEEP),
        ("deep lists, closed", b"[" * _DEEP + b"]" * _DEEP),
        ("deep objects", b'{"a":' * _DEEP),
        ("deep in texts", b'{"texts": ' + b"[" * 5000 + b"]" * 5000 + b"}"),
        ("twice", b'{"texts": ["a"], "texts": ["b"]}'),
        ("cut off", b'{"texts": ["a'),
        ("two values", b'{"texts": ["a"]}{"texts": ["b"]}'),
        ("comment", b'{"texts": ["a"] /* all of them */}'),
        ("single quotes", b"{'texts': ['a']}"),
        ("trailing comma", b'{"texts": ["a",]}'),
        ("byte order mark", b'\xef\xbb\xbf{"texts": ["a"]}'),
        ("UTF-16", '{"texts": ["a"]}'.encode("utf-16")),
        ("UTF-32", '{"texts": ["a"]}'.encode("utf-32")),
        ("latin-1", b'{"texts": ["caf\xe9"]}'),
        ("overlong UTF-8", b'{"texts": ["\xc0\xaf"]}'),
        ("surrogate in UTF-8", b'{"texts": ["\xed\xa0\x80"]}'),
        ("half a pair", b'{"texts": ["\\ud800"], "inputs": "\\ud800"}'),
        ("half a pair in a name", b'{"\\udfff": ["a"]}'),
        ("raw control characters", b'{"texts": ["a\x00\x01\n"]}'),
        ("NUL", b'{"texts": ["a\\u0000b"], "inputs": "a\\u0000"}'),
        ("nothing but blanks", b'{"texts": ["\\u2003\\u00a0"], "inputs": " "}'),
        ("no texts", b'{"texts": []}'),
        ("many texts", b'{"texts": [' + b",".join([b'"a"'] * 20_000) + b"]}"),
        ("many inputs", b'{"inputs": [' + b",".join([b'"a"'] * 20_000) + b"]}"),
        ("many fields", json.dumps({f"f{n}": n for n in range(20_000)}).encode()),
        ("a long name", b'{"' + b"n" * 500_000 + b'": 1}'),
        ("a variant of many letters", b'{"texts": ["a"], "variant": "' + b"v" * 500_000 + b'"}'),
        ("a path as variant", b'{"texts": ["a"], "variant": "../../etc/passwd"}'),
        ("pickle", b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix"),
        ("gzip", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"),
        ("XML with entities", b'<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]><a>&c;</a>'),
        ("YAML", b"texts: !!python/object/apply:os.system ['true']"),
        ("prototype", b'{"__proto__": {"texts": ["a"]}, "constructor": {}}'),
        ("top_k", b'{"inputs": "a", "parameters": {"top_k": 1e308}}'),
        ("negative top_k", b'{"inputs": "a", "parameters": {"top_k": -1}}'),
        ("a pair", b'{"inputs": ["a", "b"]}'),
        ("pairs of pairs", b'{"inputs": [["a", "b"], [["c"]]]}'),
    )
    texts = {
        "one long word": "a" * 900_000,
        "many words": "a " * 450_000,
        "right to left": "\u202e" + "abc" * 100,
        "zero width": "\u200b" * 50_000 + "a",
        "combining marks": "a" + "\u0301" * 50_000,
        "emoji families": "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 5_000,
        "private use": "\ue000" * 10_000,
        "highest": "\U0010ffff" * 10_000,
        "special tokens": "[CLS] [SEP] [PAD] [UNK] [MASK]" * 100,
        "a format": "%s%n{0.__class__}${jndi:ldap://x}" * 10,
        "markup": "<script>alert(1)</script>" * 10,
        "SQL": "'; DROP TABLE texts; --",
        "shell": "$(touch /tmp/crisp-hostile) `touch /tmp/crisp-hostile`",
        "Hangul": "\u1100\u1161" * 20_000,
        "Chinese": "\u597d" * 100_000,
    }
    for name, text in texts.items():
        one = json.dumps(text).encode()
        yield f"text: {name}", field.replace(b"%s", one)
        yield f"texts: {name}", b'{"texts": [' + one + b"]}"
        yield f"inputs: {name}", b'{"inputs": ' + one + b"}"


def request(line: str, *headers: str, body: bytes = b"", length: bool = True) -> bytes:
    counted = [f"Content-Length: {len(body)}"] if length else []
    head = "\r\n".join([line, "Host: localhost", *headers, *counted, "Connection: close", "", ""])
    return head.encode("latin-1") + body


def cases(max_body: int, max_headers: int) -> Iterator[Case]:
    """The corpus: bodies at every endpoint, then what is wrong before the body."""
    kind = "Content-Type: application/json"
    good = b'{"texts": ["A fine film."]}'
    for path in POSTS:
        line = f"POST {path} HTTP/1.1"
        for name, body in bodies():
            yield Case(f"{path}: {name}", request(line, kind, body=body))
        for wrong in ("text/plain", "application/json; charset=utf-16", "multipart/form-data",
                      "application/vnd.bentoml+pickle", "application/json\t,x", "",
                      "application/json" * 50):  # fmt: skip
            yield Case(f"{path}: {wrong[:40]}", request(line, f"Content-Type: {wrong}", body=good))
        large = b'{"texts": ["' + b"a" * (2 * max_body) + b'"]}'
        yield Case(f"{path}: twice the bytes", request(line, kind, body=large), True)
        chunks = b"%x\r\n%s\r\n" % (len(large), large)
        chunked = request(line, kind, "Transfer-Encoding: chunked", length=False)
        yield Case(f"{path}: twice the bytes, chunked", chunked + chunks + b"0\r\n\r\n", True)
        yield Case(f"{path}: bad chunk", chunked + b"zz\r\n", True)
        yield Case(f"{path}: negative chunk", chunked + b"-1\r\n\r\n", True)
        yield Case(f"{path}: huge chunk", chunked + b"ffffffffffffffffff\r\n", True)
        for length in ("-1", "abc", "1e3", "99999999999999999999", "0x10", "+5"):
            odd = request(line, kind, f"Content-Length: {length}", body=good, length=False)
            yield Case(f"{path}: length {length}", odd, True)
        both = request(line, kind, "Transfer-Encoding: chunked", body=good)
        yield Case(f"{path}: length and chunks", both, True)
        twice = request(line, kind, "Content-Length: 3", body=good)
        yield Case(f"{path}: two lengths", twice, True)
        for header in ("Content-Encoding: gzip", "Expect: 100-continue", "Expect: miracles",
                       "Upgrade: websocket\r\nConnection: upgrade", "X-Request-ID: a\tb",
                       "X-HTTP-Method-Override: DELETE", "Authorization: Bearer " + "x" * 8000,
                       "Transfer-Encoding: gzip, br", "Cookie: " + "a=b; " * 999):  # fmt: skip
            yield Case(f"{path}: {header[:30]}", request(line, kind, header, body=good), True)
        for method in ("GET", "PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "PATCH", "CONNECT"):
            yield Case(f"{method} {path}", request(f"{method} {path} HTTP/1.1"), True)
    for path in ("/" + "a" * 60_000, "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/%00",
                 "/%ff", "//predict", "/predict/", "/predict%0d%0aX: y", "/page/../app.py",
                 "/page/%2e%2e", "/page/..%2fapp.py", "/metrics/x", "*", "http://x/predict",
                 "/?" + "a=b&" * 3000, "/models/reload", "/static_content/x"):  # fmt: skip
        for method in ("GET", "POST"):
            yield Case(f"{method} {path[:30]}", request(f"{method} {path} HTTP/1.1"), True)
    many = [f"X-{n}: {n}" for n in range(max_headers)]
    yield Case("many headers", request("GET /livez HTTP/1.1", *many), True)
    yield Case(
        "a long header", request("GET /livez HTTP/1.1", "X: " + "a" * 10 * max_headers), True
    )
    yield Case("no colon", b"GET /livez HTTP/1.1\r\nHost\r\n\r\n", True)
    yield Case("a folded header", b"GET /livez HTTP/1.1\r\nHost: localhost\r\n y\r\n\r\n", True)
    yield Case("a NUL in a header", b"GET /livez HTTP/1.1\r\nHost: localhost\x00\r\n\r\n", True)
    yield Case("HTTP/0.9", b"GET /livez\r\n\r\n", True)
    yield Case("HTTP/3.7", b"GET /livez HTTP/3.7\r\n\r\n", True)
    yield Case("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", True)
    yield Case("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", True)
    yield Case("SSH", b"SSH-2.0-OpenSSH_9.6\r\n", True)
    yield Case("PROXY", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET /livez HTTP/1.1\r\n\r\n", True)
    yield Case("line feeds", b"GET /livez HTTP/1.1\nHost: localhost\nConnection: close\n\n", True)
    smuggled = (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"
        b"Transfer-Encoding: chunked\r\n"
    )
    yield Case("smuggling", smuggled + b"\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n", True)
    yield Case("all bytes", bytes(range(256)) * 16, True)


def exchange(served: Served, sent: bytes) -> bytes:
    """What comes back; closes its side after what is sent, so that nobody waits for more."""
    answer = b""
    with socket.create_connection((served.host, served.port), timeout=60) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                answer += part
    return answer


def verdict(case: Case, answer: bytes) -> tuple[str, str | None]:
    """The status, or `silence`; and what is wrong, if anything is."""
    answer = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    if not answer:
        return "silence", None if case.may_be_silent else "no answer"
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if status >= 400 and b"application/json" in head.lower() and body:
        error = json.loads(body)["error"]
        if not {"code", "message"} <= set(error):
            return str(status), "no code or message"
    elif status >= 400 and body:
        return str(status), "not the one error shape"
    if status >= 500 or b"Traceback" in body:
        return str(status), f"{body[:200]!r}"
    return str(status), None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.parse_args()
    with serve() as served:
        before = good_answer(served)
        counts: Counter[str] = Counter()
        wrong = []
        for case in cases(max_body=1 << 20, max_headers=1 << 14):
            status, complaint = verdict(case, exchange(served, case.sent))
            counts[status] += 1
            if complaint:
                wrong.append(f"{case.name}: {status}, {complaint}")
        same = good_answer(served) == before
    print(f"{sum(counts.values())} requests: "
          + ", ".join(f"{n} got {status}" for status, n in sorted(counts.items())))  # fmt: skip
    if not same:
        wrong.append("the service answers otherwise than before")
    if "Traceback" in served.log:
        wrong.append("the log has a traceback")
    print(*wrong, sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
