"""What the head of a GGUF file says: enough to refuse a file before an engine chokes on it.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The well-kept reader of PyPI
takes seconds for a vocabulary of usual size, all of which is passed over here.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
# Bytes of the scalar types by their number in the format.
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
_INTEGERS = frozenset((4, 5, 10, 11))
_MAX_LAYERS = 1024
# More of anything than any model has means that the head is broken.
_MAX_ENTRIES = 1 << 20
_MAX_ITEMS = 1 << 24
_MAX_DIMENSIONS = 8
_MAX_TEXT = 1 << 24
_KV_BYTES = 2


class UnusableFile(Exception):
    """The file cannot be served; the text says why, in words to show."""


@dataclass(frozen=True)
class ModelFile:
    """A GGUF file by its head; sizes in bytes, lengths in tokens.

    `pooling` tells that the file says how the vectors of tokens become that of a text.
    """

    path: Path
    size_bytes: int
    architecture: str
    context_length: int
    chat_template: bool
    pooling: bool
    kv_bytes_per_token: int
    parameters: int

    def needed_bytes(self, context_tokens: int) -> int:
        """Return about what weights and `context_tokens` of context take in memory."""
        return self.size_bytes + self.kv_bytes_per_token * context_tokens


def read_head(path: Path) -> ModelFile:
    """Read the head of a GGUF file.

    Raises:
        UnusableFile: there is no such file, or it is broken or of another kind.

    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            values, parameters = _Head(file, path).read(size)
    except OSError as error:
        raise UnusableFile(f"{path}: {error.strerror}") from error
    return _model_file(path, size, values, parameters)


def _model_file(path: Path, size: int, values: Mapping[str, object], parameters: int) -> ModelFile:
    architecture = str(values.get("general.architecture", ""))

    def number(name: str, default: int = 0) -> int:
        value = values.get(f"{architecture}.{name}", default)
        return value if isinstance(value, int) else default

    layers = number("block_count")
    heads = max(1, _most(values.get(f"{architecture}.attention.head_count"), 1))
    width = number("attention.key_length", number("embedding_length") // heads)
    kv_heads = values.get(f"{architecture}.attention.head_count_kv", heads)
    # Some models have another number of them in each layer.
    all_kv_heads = sum(kv_heads) if isinstance(kv_heads, list) else _most(kv_heads, 0) * layers
    return ModelFile(
        path=path,
        size_bytes=size,
        architecture=architecture,
        context_length=number("context_length"),
        chat_template=bool(values.get("tokenizer.chat_template")),
        pooling=bool(number("pooling_type")),
        kv_bytes_per_token=all_kv_heads * width * 2 * _KV_BYTES,
        parameters=parameters,
    )


def _most(value: object, default: int) -> int:
    """The number, or the largest of several."""
    if isinstance(value, list):
        return max(value, default=default)
    return value if isinstance(value, int) else default


class _Head:
    """Walks through the head; scalars, texts and short lists of whole numbers are kept."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path

    def read(self, size: int) -> tuple[dict[str, object], int]:
        """The values by their keys, and how many weights all tensors have."""
        if self._file.read(4) != _MAGIC:
            raise UnusableFile(f"{self._path} is no GGUF file")
        version = self._number("I")
        if version not in _VERSIONS:
            raise UnusableFile(f"{self._path} is GGUF version {version}: 2 and 3 are known")
        tensors, entries = self._count("Q", _MAX_ENTRIES), self._count("Q", _MAX_ENTRIES)
        values = dict(self._entry() for _ in range(entries))
        places = [self._tensor() for _ in range(tensors)]
        last = max((offset for offset, _ in places), default=0)
        if self._file.tell() + last >= size:
            raise self._cut_off()
        return values, sum(weights for _, weights in places)

    def _tensor(self) -> tuple[int, int]:
        """Where a tensor begins, in bytes after the head, and how many weights it has."""
        self._text()
        dimensions = self._count("I", _MAX_DIMENSIONS)
        weights = math.prod(self._number("Q") for _ in range(dimensions))
        self._skip(4)
        return self._number("Q"), weights

    def _entry(self) -> tuple[str, object]:
        key = self._text()
        return key, self._value(self._number("I"))

    def _value(self, kind: int) -> object:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            return self._array()
        if kind not in _SCALARS:
            raise self._broken()
        return self._unpack(_SCALARS[kind])

    def _array(self) -> list[int] | None:
        kind, items = self._number("I"), self._count("Q", _MAX_ITEMS)
        if kind in _INTEGERS and items <= _MAX_LAYERS:
            return [self._number(_SCALARS[kind]) for _ in range(items)]
        if kind == _STRING:
            for _ in range(items):
                self._skip(self._count("Q", _MAX_TEXT))
        elif kind in _SCALARS:
            self._skip(items * struct.calcsize(_SCALARS[kind]))
        else:
            raise self._broken()
        return None

    def _text(self) -> str:
        return self._take(self._count("Q", _MAX_TEXT)).decode("utf-8", "replace")

    def _count(self, form: str, most: int) -> int:
        value = self._number(form)
        if value > most:
            raise self._broken()
        return value

    def _number(self, form: str) -> int:
        return int(self._unpack(form))

    def _unpack(self, form: str) -> int | float | bool:
        value: int | float | bool = struct.unpack(f"<{form}", self._take(struct.calcsize(form)))[0]
        return value

    def _take(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise self._cut_off()
        return data

    def _skip(self, size: int) -> None:
        self._file.seek(size, 1)

    def _cut_off(self) -> UnusableFile:
        return UnusableFile(f"{self._path} is cut off: fetch it again")

    def _broken(self) -> UnusableFile:
        return UnusableFile(f"{self._path} has a broken head: fetch it again")
