"""Any local model folder: what is built from it, what is refused, what a cut-off build leaves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from services.embeddings import model_folder
from services.embeddings.encoder import OnnxEncoder
from services.embeddings.graph import build_graph
from services.embeddings.model_folder import ensure_built, version_of
from services.embeddings.source import ModelError, folder_source
from tests.support.models import HIDDEN, POSITIONS, write_tiny_bert

TEXTS = ["the red boat sails home", "blue bird", "a zebra"]


def vectors(folder: Path) -> np.ndarray:
    encoder = OnnxEncoder(folder)
    return np.stack([one.vector for one in encoder.encode(encoder.tokenize(TEXTS))])


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_bert(tmp_path / "Tiny Model")


def test_a_folder_is_served_under_its_own_name(tiny: Path, tmp_path: Path):
    encoder = OnnxEncoder(ensure_built(tiny, tmp_path / "built"))
    assert encoder.info.version.startswith("tiny-model-q8@")
    assert encoder.info.dimensions == HIDDEN
    assert encoder.info.max_tokens == POSITIONS
    cut = encoder.tokenize(["zebra " * 30])[0]
    assert (len(cut), cut.truncated) == (POSITIONS, True)


def test_an_onnx_file_serves_as_well_as_weights(tiny: Path, tmp_path: Path):
    from_weights = vectors(ensure_built(tiny, tmp_path / "built"))
    config = json.loads((tiny / "config.json").read_text())
    onnx.save(build_graph(load_file(tiny / "model.safetensors"), config), tiny / "model.onnx")
    (tiny / "model.safetensors").unlink()
    from_onnx = vectors(ensure_built(tiny, tmp_path / "built"))
    assert from_onnx == pytest.approx(from_weights, abs=1e-5)


def test_a_folder_may_pool_by_its_first_token(tiny: Path, tmp_path: Path):
    first = write_tiny_bert(tmp_path / "cls", pooling="cls_token")
    built = [vectors(ensure_built(one, tmp_path / "built")) for one in (tiny, first)]
    assert np.abs(built[0] - built[1]).max() > 0.01
    assert np.linalg.norm(built[1], axis=1) == pytest.approx(np.ones(3), abs=1e-5)


def test_another_model_has_another_version(tiny: Path, tmp_path: Path):
    before = version_of(folder_source(tiny))
    (tiny / "sentence_bert_config.json").write_text('{"max_seq_length": 12}')
    assert version_of(folder_source(tiny)) != before


def test_a_built_model_is_found_again_without_building(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    built = ensure_built(tiny, tmp_path / "built")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it was built twice")

    monkeypatch.setattr(model_folder, "_run_builder", refuse)
    assert ensure_built(tiny, tmp_path / "built") == built


def test_a_build_that_was_cut_off_is_cleared_and_made_again(tiny: Path, tmp_path: Path):
    models = tmp_path / "built"
    half = models / version_of(folder_source(tiny))
    half.mkdir(parents=True)
    (half / "model.onnx").write_bytes(b"half of it")
    (models / ".building-gone").mkdir()
    built = ensure_built(tiny, models)
    assert vectors(built).shape == (3, HIDDEN)
    assert sorted(path.name for path in models.iterdir()) == [".lock", built.name]


def test_a_failed_build_leaves_nothing_and_says_why(tmp_path: Path):
    strange = write_tiny_bert(tmp_path / "strange", hidden_act="relu")
    with pytest.raises(ModelError, match="unsupported hidden_act 'relu'"):
        ensure_built(strange, tmp_path / "built")
    assert [path.name for path in (tmp_path / "built").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "config.json is missing"),
        ("tokenizer.json", "tokenizer.json is missing"),
        ("model.safetensors", "holds no weights"),
    ],
)
def test_a_folder_without_a_file_is_refused_by_its_name(tiny: Path, missing: str, message: str):
    (tiny / missing).unlink()
    with pytest.raises(ModelError, match=message):
        folder_source(tiny)


def test_a_pooling_that_we_do_not_do_is_refused(tmp_path: Path):
    folder = write_tiny_bert(tmp_path / "max", pooling="max_tokens")
    with pytest.raises(ModelError, match="pools by max_tokens"):
        folder_source(folder)


def test_a_broken_description_is_refused(tiny: Path):
    (tiny / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        folder_source(tiny)
