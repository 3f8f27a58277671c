"""A model's folder is looked at before an engine reads it; each fault is one clear line."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from services.models.engines.engine import CannotLoad
from services.models.engines.settings import VllmModel
from services.models.engines.vllm.checkpoint import (
    UnusableCheckpoint,
    read_checkpoint,
    require_adapter,
)
from services.models.engines.vllm.loading import load


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as a model's is."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text('{"dtype": "bfloat16"}')
    write_weights(made / "model.safetensors", 64)
    return made


def write_weights(path: Path, size: int) -> None:
    """A safetensors file with one tensor of so many bytes."""
    tensor = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    header = json.dumps({"__metadata__": {}, "w": tensor}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))


def cut_off(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def break_head(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"no safetensors at all")


def break_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def lose_shard(folder: Path) -> None:
    listed = {"weight_map": {"w": "model.safetensors", "v": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(listed))


def test_a_whole_folder_tells_its_size_and_configuration(folder: Path) -> None:
    size, config = read_checkpoint(folder)
    assert size == (folder / "model.safetensors").stat().st_size
    assert config == {"dtype": "bfloat16"}


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (cut_off, "{0}/model.safetensors is cut off: fetch it again"),
        (break_head, "{0}/model.safetensors has a broken head: fetch it again"),
        (lose_shard, "{0} lacks model-2.safetensors: fetch it again"),
        (lambda f: (f / "config.json").unlink(), "{0} has no config.json"),
        (
            break_config,
            "{0}/config.json is broken: fetch it again",
        ),
        (lambda f: (f / "model.safetensors").unlink(), "{0} has no weights (*.safetensors)"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said_in_one_line(
    folder: Path, harm: Callable[[Path], object], told: str
) -> None:
    harm(folder)
    with pytest.raises(UnusableCheckpoint) as raised:
        read_checkpoint(folder)
    assert str(raised.value) == told.format(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableCheckpoint, match="is no folder with a model"):
        read_checkpoint(tmp_path / "nowhere")


def test_an_adapter_without_its_description_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableCheckpoint, match=r"^LoRA adapter terse: .* adapter_config\.json$"):
        require_adapter("terse", tmp_path)


async def test_without_vllm_the_extra_to_install_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CannotLoad) as raised:
        await load(VllmModel(model=str(folder)), print, print)
    assert str(raised.value) == (
        "vLLM is not installed here: add the extra `vllm` of echomesh-services"
    )
