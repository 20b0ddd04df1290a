"""Feeds made-up bytes to all that a body passes before a model: JSON, request, tokens, packs.

    pip install -c constraints.txt -e '.[fuzz]'
    python tests/faults/fuzz_tokenise.py --runs 100000

Atheris changes bytes by what they make the code do. Fails, and keeps the bytes in a file, where
something else than a RequestError comes out, or where packs are not what they should be.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from itertools import chain
from pathlib import Path

import atheris
import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

with atheris.instrument_imports(include=["service", "export.packing"]):
    from export.packing import pack
    from service import strict_json
    from service.engine import Engine, packs
    from service.errors import RequestError
    from service.explain_schemas import ExplainRequest
    from service.hugging_face import HuggingFaceRequest, TeiRequest
    from service.schemas import CompareRequest, JsonRequest, PredictRequest, parse

KINDS = (PredictRequest, CompareRequest, ExplainRequest, HuggingFaceRequest, TeiRequest)
PACK_TOKENS = 512
SEEDS = (
    b'\x00{"texts": ["A warm, funny film.", "Dull."], "variant": null}',
    b'\x03{"inputs": "A warm, funny film.", "parameters": {"top_k": 1}}',
    b'\x04{"inputs": [["A warm, funny film."], ["Dull."]], "truncate": true}',
    b'\x01{"texts": ["\\ud83d\\ude00 caf\xc3\xa9 \\u200b"]}',
    b"\x80A warm, funny film.\xffDull \xf0\x9f\x98\x80 caf\xc3\xa9",
    b'\x00{"texts": ["[CLS] \\u0000"], "texts": 1e5}',
)

engine: Engine
tried = tokenised = 0


def texts_of(kind: type[JsonRequest], body: bytes) -> tuple[RequestError | None, list[str]]:
    try:
        return None, parse(kind, body, max_texts=64).texts
    except RequestError as error:
        return error, []


def one(data: bytes) -> None:
    """The first byte says which request the rest is read as; with its high bit set, the rest is not
    JSON but texts, so that many inputs come as far as the tokenizer."""
    global tried, tokenised
    tried += 1
    if tried % 10_000 == 0:  # libFuzzer ends the process without a word of ours
        print(f"{tried} inputs, {tokenised} came as far as the tokenizer", flush=True)
    first, body = data[:1] or b"\0", data[1:]
    kind = KINDS[first[0] % len(KINDS)]
    if first[0] & 128:
        kind = PredictRequest
        texts = [piece.decode("utf-8", "replace") for piece in body.split(b"\xff")]
        body = json.dumps({"texts": texts}).encode()
    try:
        value = strict_json.loads(body)
    except ValueError:
        value = None
    refused, texts = texts_of(kind, body)
    if refused is not None:
        assert refused.status in (400, 422), refused
        assert "\n" not in str(refused), refused
        return
    assert isinstance(value, dict)
    tokenised += 1
    encodings = engine.tokenize(texts)
    assert len(encodings) == len(texts)
    limit = engine.manifest.max_tokens
    assert all(2 <= len(encoding.ids) <= limit for encoding in encodings)
    sequences = [encoding.ids for encoding in encodings]
    runs = list(packs([len(ids) for ids in sequences], PACK_TOKENS))
    assert list(chain.from_iterable(range(*run) for run in runs)) == list(range(len(texts)))
    for first, last in runs:
        packed = pack(sequences[first:last])
        offsets = packed["cu_seqlens"]
        assert offsets[0] == 0
        assert (np.diff(offsets) > 0).all()
        assert offsets[-1] == len(packed["input_ids"])
        assert last == first + 1 or offsets[-1] <= PACK_TOKENS


def main() -> None:
    global engine
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=100_000)
    asked = parser.parse_args()
    engine = Engine.load(ROOT / "service" / "models" / "sparse", threads=1)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(SEEDS):
            (Path(corpus) / str(number)).write_bytes(seed)
        limits = [f"-runs={asked.runs}", "-max_len=4096", "-timeout=20", "-rss_limit_mb=4096"]
        atheris.Setup([sys.argv[0], *limits, "-seed=1", "-print_final_stats=1", corpus], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
