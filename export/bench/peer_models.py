"""Writes the same dense weights as other servers want them, for `crisp loadtest --peers`.

    python -m export.bench.peer_models --out FOLDER

FOLDER gets `fp32.onnx` and `int8.onnx` (exported by transformers, fused by ONNX Runtime's
optimizer, quantize_dynamic), `openvino-int8.xml` (NNCF, where OpenVINO is installed),
`transformers/` (a folder for from_pretrained) and `models.json`, which says what is what. All are
held against torch, as for `crisp bench`.
"""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from tokenizers import Tokenizer
from transformers import DistilBertForSequenceClassification

from export.bench.baseline import FUSIONS, classifier_of_folder, stock_graphs
from export.bench.openvino_peer import save_int8
from export.bench.texts import calibration_texts, encoder
from export.errors import ExportError
from export.manifest import ModelFolder
from training.files import write_atomically

BUNDLED = Path(__file__).resolve().parents[2] / "service" / "models" / "dense"
FACTS_FILE = "models.json"
_FUSION = FUSIONS[0]  # the faster one for single short texts on most machines


def write(source: Path, out: Path) -> dict[str, Any]:
    """Writes everything into `out`, each file whole and models.json last, and returns what that
    says.

    Raises ModelFolderError where `source` is no model folder whose weights can be read back,
    ParityError where what was written differs from torch.
    """
    folder = ModelFolder.load(source)
    model = classifier_of_folder(folder)
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".building-", dir=out) as temporary:
        building = Path(temporary)
        facts = _build(model, folder, building)
        (out / FACTS_FILE).unlink(missing_ok=True)  # while the files are of two times
        for made in building.iterdir():
            if (out / made.name).is_dir():
                shutil.rmtree(out / made.name)
            made.replace(out / made.name)
    write_atomically(out / FACTS_FILE, json.dumps(facts, indent=1) + "\n")
    return facts


def _build(
    model: DistilBertForSequenceClassification, folder: ModelFolder, out: Path
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "weights": folder.manifest.name,
        "labels": list(folder.manifest.labels),
        "max_tokens": folder.manifest.max_tokens,
    }
    with TemporaryDirectory() as temporary:
        baseline = stock_graphs(model, Path(temporary), progress=print)
        for name, files in (("fp32.onnx", baseline.fp32), ("int8.onnx", baseline.int8)):
            shutil.copyfile(files[_FUSION], out / name)
            facts[name] = {"bytes": (out / name).stat().st_size}
    if find_spec("openvino") is not None and find_spec("nncf") is not None:
        print("quantising it with NNCF")
        texts, origin = calibration_texts(encoder(folder), [])
        save_int8(model, texts, out / "openvino-int8.xml")
        size = (out / "openvino-int8.bin").stat().st_size
        facts["openvino-int8.xml"] = {"bytes": size, "calibration": origin}
    facts["transformers"] = {"bytes": _save_transformers(model, folder, out / "transformers")}
    shutil.copyfile(out / "fp32.onnx", out / "transformers" / "model.onnx")  # for Optimum
    return facts


def _save_transformers(
    model: DistilBertForSequenceClassification, folder: ModelFolder, out: Path
) -> int:
    labels = folder.manifest.labels
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: number for number, label in enumerate(labels)}
    model.config.architectures = ["DistilBertForSequenceClassification"]
    model.save_pretrained(out)
    shutil.copyfile(folder.tokenizer, out / "tokenizer.json")
    tokenizer = Tokenizer.from_file(str(folder.tokenizer))
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("cls", "mask", "pad", "sep", "unk")}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": folder.manifest.max_tokens,
        "model_input_names": ["input_ids", "attention_mask"],
        **{k: word for k, word in names.items() if tokenizer.token_to_id(word) is not None},
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
    return (out / "model.safetensors").stat().st_size


def main(
    out: Annotated[Path, typer.Option(help="Folder to write into.")],
    model: Annotated[Path, typer.Option(help="Model folder with the weights.")] = BUNDLED,
) -> None:
    """Writes the weights of a model folder as other servers want them."""
    try:
        write(model, out)
    except ExportError as error:
        raise SystemExit(f"error: {error}") from None
    print(f"wrote {out}")


if __name__ == "__main__":
    typer.run(main)
