"""The encoder: a built model folder on ONNX Runtime, on the CPU."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

from services.embeddings.vectors import Embedding, ModelInfo, Tokens, TokenVectors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt
    from tokenizers import Encoding

ERRORS_ONLY = 3  # onnxruntime's log severity


def open_session(model: str | bytes) -> ort.InferenceSession:
    """Open a model (a path or its bytes) for one thread per run; runs may overlap in threads."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # parallel over batches, not inside them
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # patterns pay only for fixed shapes
    options.log_severity_level = ERRORS_ONLY
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def open_tokenizer(path: Path, max_tokens: int) -> Tokenizer:
    """Load a tokenizer that truncates to `max_tokens` and never pads.

    The markers of the vocabulary, such as ``[SEP]``, are read as ordinary text where users write
    them.
    """
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(max_tokens)
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def feeds(
    batch: Sequence[npt.NDArray[np.int64]], names: Sequence[str]
) -> dict[str, npt.NDArray[np.int64]]:
    """Pad token ids to one length and pair them with the inputs that a model takes."""
    ids = np.zeros((len(batch), max(len(row) for row in batch)), np.int64)
    mask = np.zeros_like(ids)
    for number, row in enumerate(batch):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    known = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {name: known[name] for name in names}


class OnnxEncoder:
    """An `Encoder` over a folder that `services.embeddings.build` made."""

    def __init__(self, folder: Path) -> None:
        described = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        self._info = ModelInfo(**described)
        self._tokenizer = open_tokenizer(folder / "tokenizer.json", self._info.max_tokens)
        self._session = open_session(str(folder / "model.onnx"))
        self._inputs = [given.name for given in self._session.get_inputs()]

    @property
    def info(self) -> ModelInfo:
        """The model's name, version and sizes."""
        return self._info

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Cut texts into tokens, in order."""
        return [_tokens(encoding) for encoding in self._tokenizer.encode_batch(list(texts))]

    def encode(self, batch: Sequence[Tokens]) -> list[Embedding]:
        """Compute a batch's vectors, in order."""
        given: Any = feeds([tokens.ids for tokens in batch], self._inputs)
        sentences, vectors = self._session.run(["sentence", "tokens"], given)
        return [
            _embedding(tokens, sentences[number], vectors[number])
            for number, tokens in enumerate(batch)
        ]


def _tokens(encoding: Encoding) -> Tokens:
    content = np.flatnonzero(np.array(encoding.special_tokens_mask) == 0)
    first, last = (int(content[0]), int(content[-1]) + 1) if len(content) else (0, 0)
    offsets = np.array(encoding.offsets, np.int32).reshape(-1, 2)[first:last]
    return Tokens(
        ids=np.array(encoding.ids, np.int64),
        first=first,
        last=last,
        starts=offsets[:, 0].copy(),
        ends=offsets[:, 1].copy(),
        truncated=bool(encoding.overflowing),
    )


def _embedding(
    tokens: Tokens, sentence: npt.NDArray[np.float32], vectors: npt.NDArray[np.int8]
) -> Embedding:
    """Copies, so that no embedding keeps its whole batch alive."""
    kept = slice(tokens.first, tokens.last)
    return Embedding(
        vector=sentence.copy(),
        token_vectors=TokenVectors(
            vectors=vectors[kept].copy(),
            ids=tokens.ids[kept].astype(np.int32),
            starts=tokens.starts,
            ends=tokens.ends,
        ),
        tokens=len(tokens),
        truncated=tokens.truncated,
    )
