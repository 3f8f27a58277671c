"""A model's folder, looked at before an engine reads it: an engine's own word would be obscure."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt")
_INDEX = "model.safetensors.index.json"
# A header describes every tensor; those of the largest models have a few MB.
_MAX_HEADER_BYTES = 100 << 20


class UnusableCheckpoint(Exception):
    """The folder holds no whole model; the text says why, in words to show."""


def read_checkpoint(folder: Path) -> tuple[int, dict[str, Any]]:
    """Return the size of a model's weights in bytes, and its configuration.

    Raises:
        UnusableCheckpoint: something is missing, cut off or broken.

    """
    if not folder.is_dir():
        raise UnusableCheckpoint(f"{folder} is no folder with a model")
    config = _json_object(folder / "config.json")
    files = next((found for kind in _WEIGHTS if (found := sorted(folder.glob(kind)))), [])
    if not files:
        raise UnusableCheckpoint(f"{folder} has no weights (*.safetensors)")
    _require_shards(folder)
    for file in files:
        if file.suffix == ".safetensors":
            _require_whole(file)
    return sum(file.stat().st_size for file in files), config


def require_adapter(name: str, folder: Path) -> None:
    """Raise UnusableCheckpoint if `folder` holds no whole LoRA adapter."""
    if not (folder / "adapter_config.json").is_file():
        raise UnusableCheckpoint(f"LoRA adapter {name}: {folder} has no adapter_config.json")
    _json_object(folder / "adapter_config.json")
    for file in folder.glob("*.safetensors"):
        _require_whole(file)


def _require_shards(folder: Path) -> None:
    if not (folder / _INDEX).exists():
        return
    listed = _json_object(folder / _INDEX).get("weight_map", {})
    for name in sorted(set(listed.values())):
        if not (folder / name).is_file():
            raise UnusableCheckpoint(f"{folder} lacks {name}: fetch it again")


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


def _require_whole(path: Path) -> None:
    """Check that a safetensors file is as long as its header says.

    Layout: eight bytes with the header's length, the header in JSON, the tensors' bytes.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header: Any = json.loads(file.read(min(length, _MAX_HEADER_BYTES)))
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name[:2] != "__"]
    except (struct.error, ValueError, AttributeError, KeyError, TypeError, IndexError):
        raise UnusableCheckpoint(f"{path} has a broken head: fetch it again") from None
    if size < 8 + length + max(ends, default=0):
        raise UnusableCheckpoint(f"{path} is cut off: fetch it again")
