"""A model's folder is looked at before an engine reads it; each fault is one clear line."""

from __future__ import annotations

import json
import math
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


def write_weights(path: Path, *shape: int, dtype: str = "U8", width: int = 1) -> None:
    """A safetensors file with one tensor of that shape, `width` bytes each."""
    size = math.prod(shape) * width
    tensor = {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}
    header = json.dumps({"__metadata__": {}, "w": tensor}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))


def write_index(folder: Path, *files: str) -> None:
    """An index that names files."""
    listed = {"weight_map": {f"w{number}": name for number, name in enumerate(files)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(listed))


def cut_off(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def break_head(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"no safetensors at all")


def break_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def lose_shard(folder: Path) -> None:
    write_index(folder, "model.safetensors", "model-2.safetensors")


def break_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": []}')


def test_a_whole_folder_tells_its_size_and_configuration(folder: Path) -> None:
    found = read_checkpoint(folder)
    assert found.size_bytes == (folder / "model.safetensors").stat().st_size
    assert found.config == {"dtype": "bfloat16"}


def test_only_the_files_that_an_index_names_are_counted(folder: Path) -> None:
    """Some models come with all their weights a second time, in one file."""
    write_weights(folder / "model-1.safetensors", 4, 5)
    write_weights(folder / "model-2.safetensors", 6)
    write_weights(folder / "consolidated.safetensors", 26)
    (folder / "model.safetensors").unlink()
    shards = ("model-1.safetensors", "model-2.safetensors")
    write_index(folder, *shards)
    found = read_checkpoint(folder)
    assert found.size_bytes == sum((folder / shard).stat().st_size for shard in shards)
    assert found.parameters == 26


@pytest.mark.parametrize(
    ("dtype", "width", "quantized", "parameters"),
    [
        ("BF16", 2, False, 96),
        ("I32", 4, False, 96),
        ("F8_E4M3", 1, True, 96),
        ("I32", 4, True, 0),
        ("U8", 1, True, 0),
    ],
)
def test_parameters_are_counted_unless_several_are_packed_into_one_number(
    folder: Path, dtype: str, width: int, quantized: bool, parameters: int
) -> None:
    write_weights(folder / "model.safetensors", 8, 12, dtype=dtype, width=width)
    if quantized:
        (folder / "config.json").write_text('{"quantization_config": {}}')
    assert read_checkpoint(folder).parameters == parameters


def test_the_parameters_of_files_in_other_forms_are_not_known(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model.bin")
    assert read_checkpoint(folder).parameters == 0


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (cut_off, "{0}/model.safetensors is cut off: fetch it again"),
        (break_head, "{0}/model.safetensors has a broken head: fetch it again"),
        (break_index, "{0}/model.safetensors.index.json is broken: fetch it again"),
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
