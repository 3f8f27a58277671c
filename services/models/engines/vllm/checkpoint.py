"""A model's folder, looked at before an engine reads it: an engine's own word would be obscure."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt")
_INDEX = "model.safetensors.index.json"
# A header describes every tensor; those of the largest models have a few MB.
_MAX_HEADER_BYTES = 100 << 20


class UnusableCheckpoint(Exception):
    """The folder holds no whole model; the text says why, in words to show."""


@dataclass(frozen=True)
class Checkpoint:
    """A model's folder.

    `parameters` are its weights by number, 0 where it is not known: for files other than
    safetensors, and for quantised weights packed into whole numbers, several in each.
    """

    size_bytes: int
    parameters: int
    config: Mapping[str, Any]


class _Tensor(NamedTuple):
    """One of a file's tensors: where it ends in bytes, and whether it has no whole numbers."""

    weights: int
    real: bool
    end: int


def read_checkpoint(folder: Path) -> Checkpoint:
    """Return what a model's folder holds.

    Raises:
        UnusableCheckpoint: something is missing, cut off or broken.

    """
    if not folder.is_dir():
        raise UnusableCheckpoint(f"{folder} is no folder with a model")
    config = _json_object(folder / "config.json")
    files = _weight_files(folder)
    heads = [_require_whole(file) for file in files if file.suffix == ".safetensors"]
    tensors = [tensor for head in heads for tensor in head]
    packed = config.get("quantization_config") is not None and not all(
        tensor.real for tensor in tensors
    )
    parameters = 0 if packed else sum(tensor.weights for tensor in tensors)
    return Checkpoint(sum(file.stat().st_size for file in files), parameters, config)


def require_adapter(name: str, folder: Path) -> None:
    """Raise UnusableCheckpoint if `folder` holds no whole LoRA adapter."""
    if not (folder / "adapter_config.json").is_file():
        raise UnusableCheckpoint(f"LoRA adapter {name}: {folder} has no adapter_config.json")
    _json_object(folder / "adapter_config.json")
    for file in folder.glob("*.safetensors"):
        _require_whole(file)


def _weight_files(folder: Path) -> list[Path]:
    """The files that an engine reads: those of the index, where there is one, and no copies."""
    if (folder / _INDEX).exists():
        return _shards(folder)
    files = next((found for kind in _WEIGHTS if (found := sorted(folder.glob(kind)))), [])
    if not files:
        raise UnusableCheckpoint(f"{folder} has no weights (*.safetensors)")
    return files


def _shards(folder: Path) -> list[Path]:
    listed = _json_object(folder / _INDEX).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise UnusableCheckpoint(f"{folder / _INDEX} is broken: fetch it again")
    files = [folder / str(name) for name in sorted(set(map(str, listed.values())))]
    for file in files:
        if not file.is_file():
            raise UnusableCheckpoint(f"{folder} lacks {file.name}: fetch it again")
    return files


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UnusableCheckpoint(f"{path.parent} has no {path.name}") from None
    except OSError as error:
        raise UnusableCheckpoint(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise UnusableCheckpoint(f"{path} is broken: fetch it again") from None
    if not isinstance(value, dict):
        raise UnusableCheckpoint(f"{path} is broken: fetch it again")
    return value


def _require_whole(path: Path) -> list[_Tensor]:
    """Return the tensors of a safetensors file; it must be as long as its header says.

    Layout: eight bytes with the header's length, the header in JSON, the tensors' bytes.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header: Any = json.loads(file.read(min(length, _MAX_HEADER_BYTES)))
        tensors = [_tensor(told) for name, told in header.items() if name[:2] != "__"]
    except (struct.error, ValueError, AttributeError, KeyError, TypeError, IndexError):
        raise UnusableCheckpoint(f"{path} has a broken head: fetch it again") from None
    if size < 8 + length + max((tensor.end for tensor in tensors), default=0):
        raise UnusableCheckpoint(f"{path} is cut off: fetch it again")
    return tensors


def _tensor(told: Mapping[str, Any]) -> _Tensor:
    real = told["dtype"].startswith(("F", "BF"))
    return _Tensor(math.prod(told["shape"]), real, told["data_offsets"][1])
