"""The head of a GGUF file: read what is needed, and one clear line for what is broken."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.models.engines.gguf import UnusableFile, read_head
from tests.support.gguf import head

VALUES = {
    "general.architecture": "llama",
    "llama.context_length": 8192,
    "llama.block_count": 30,
    "llama.embedding_length": 576,
    "llama.attention.head_count": 9,
    "llama.attention.head_count_kv": 3,
    "tokenizer.ggml.tokens": ["a", "bc", ""],
    "tokenizer.chat_template": "{{ messages }}",
}
WHOLE = head(VALUES, tensor_offsets=(0, 32)) + b"\0" * 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf")


def reason(folder: Path, data: bytes) -> str:
    """Why a file with these bytes cannot be served, without its path; "" if it can."""
    path = folder / "model.gguf"
    path.write_bytes(data)
    try:
        read_head(path)
    except UnusableFile as error:
        return str(error).replace(str(path), "FILE")
    return ""


def test_a_whole_head_tells_what_the_engine_needs(folder: Path) -> None:
    path = folder / "whole.gguf"
    path.write_bytes(WHOLE)
    file = read_head(path)
    assert (file.architecture, file.context_length, file.chat_template) == ("llama", 8192, True)
    assert file.parameters == 2 * 2 * 3
    # Keys and values of 30 layers, 3 heads of 64 numbers of two bytes.
    assert file.kv_bytes_per_token == 30 * 3 * 64 * 2 * 2
    assert file.needed_bytes(1000) == len(WHOLE) + 1000 * file.kv_bytes_per_token


def test_layers_may_have_different_numbers_of_heads(folder: Path) -> None:
    path = folder / "mixed.gguf"
    heads = [0, 3, 0, 1]
    mixed = VALUES | {"llama.attention.head_count_kv": heads, "llama.block_count": 4}
    path.write_bytes(head(mixed) + b"\0" * 64)
    assert read_head(path).kv_bytes_per_token == sum(heads) * 64 * 2 * 2


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "FILE is no GGUF file"),
        (b"PK\x03\x04 a zip file", "FILE is no GGUF file"),
        (head(VALUES, version=9), "FILE is GGUF version 9: 2 and 3 are known"),
        (WHOLE[:100], "FILE is cut off: fetch it again"),
        (head(VALUES, tensor_offsets=(0, 10_000)) + b"\0" * 64, "FILE is cut off: fetch it again"),
        (b"GGUF\x03\0\0\0" + b"\xff" * 64, "FILE has a broken head: fetch it again"),
    ],
)
def test_an_unusable_file_is_named_with_its_reason(folder: Path, data: bytes, why: str) -> None:
    assert reason(folder, data) == why


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match=r"none\.gguf: No such file or directory"):
        read_head(tmp_path / "none.gguf")


@settings(max_examples=300)
@given(cut=st.integers(0, len(WHOLE) - 33), noise=st.binary(max_size=16))
def test_whatever_is_wrong_the_reason_is_one_line_and_nothing_else_is_raised(
    folder: Path, cut: int, noise: bytes
) -> None:
    assert "\n" not in reason(folder, WHOLE[:cut] + noise + WHOLE[cut + len(noise) :])
    assert reason(folder, WHOLE[:cut])
