"""Builds a model folder for serving; run as ``python -m services.embeddings.build``.

A process of its own, so that the service never holds the graph tools and two copies of the weights.
The folder that it writes holds ``model.onnx``, ``tokenizer.json`` and ``model.json``.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from safetensors.numpy import load_file

from services.embeddings.encoder import feeds, open_session, open_tokenizer
from services.embeddings.graph import build_graph
from services.embeddings.head import append_head, hidden_output, principal_directions
from services.embeddings.quantize import quantize_model
from services.embeddings.source import ModelError, ModelSource, folder_source, packaged_source
from services.embeddings.vectors import ModelInfo

if TYPE_CHECKING:
    import numpy.typing as npt

TOKEN_DIMENSIONS = 64
PROJECTION_WORDS = 3000
PROJECTION_BATCH = 100
WORD = re.compile(r"(?:▁|Ġ)?([a-z]{3,})")  # with the marks that other vocabularies put before words


def build_folder(source: ModelSource, version: str, target: Path) -> None:
    """Write the files that serve `source` into the empty folder `target`."""
    try:
        model = _load(source)
        projection = _projection(model, source)
        append_head(quantize_model(model), projection, source.pooling)
    except (KeyError, ValueError) as error:
        raise ModelError(f"{source.weights} cannot be served: {error}") from error
    onnx.save(model, target / "model.onnx")
    shutil.copyfile(source.tokenizer, target / "tokenizer.json")
    hidden, dimensions = projection.shape
    info = ModelInfo(version, hidden, dimensions, source.max_tokens)
    (target / "model.json").write_text(json.dumps(asdict(info)), encoding="utf-8")


def _load(source: ModelSource) -> onnx.ModelProto:
    if source.weights.suffix == ".onnx":
        return onnx.load(source.weights)
    return build_graph(load_file(source.weights), source.config())


def _projection(model: onnx.ModelProto, source: ModelSource) -> npt.NDArray[np.float32]:
    """Top directions of the exact model's outputs on words of its own vocabulary, each alone."""
    tokenizer = open_tokenizer(source.tokenizer, source.max_tokens)
    session = open_session(model.SerializeToString())
    output = hidden_output(model)
    names = [given.name for given in session.get_inputs()]
    rows = []
    words = _words(tokenizer.get_vocab())
    for start in range(0, len(words), PROJECTION_BATCH):
        encodings = tokenizer.encode_batch(words[start : start + PROJECTION_BATCH])
        given: Any = feeds([np.array(e.ids, np.int64) for e in encodings], names)
        hidden = np.asarray(session.run([output], given)[0])
        for number, encoding in enumerate(encodings):
            content = np.flatnonzero(np.array(encoding.special_tokens_mask) == 0)
            rows.append(hidden[number, content])
    vectors = np.concatenate(rows)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return principal_directions(unit, TOKEN_DIMENSIONS)


def _words(vocabulary: dict[str, int]) -> list[str]:
    """A fixed choice of plain words: the same for the same vocabulary, on every machine."""
    words = sorted({found[1] for entry in vocabulary if (found := WORD.fullmatch(entry))})
    if not words:
        raise ValueError("its vocabulary has no plain words to find the token projection with")
    order = np.random.default_rng(0).permutation(len(words))[:PROJECTION_WORDS]
    return [words[number] for number in order]


def main() -> int:
    """Build from the command line; one line on standard error says what went wrong."""
    parser = argparse.ArgumentParser(description="Build a model folder for the embeddings service.")
    parser.add_argument("--source", type=Path, help="a model folder; default: the packaged MiniLM")
    parser.add_argument("--version", required=True, help="the version that the folder will state")
    parser.add_argument("--target", type=Path, required=True, help="an existing, empty folder")
    given = parser.parse_args()
    try:
        source = folder_source(given.source) if given.source else packaged_source()
        build_folder(source, given.version, given.target)
    except (ModelError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
