"""The packaged MiniLM: its built form against the exact model, and a text against its batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from services.embeddings.encoder import OnnxEncoder, feeds, open_session
from services.embeddings.graph import build_graph
from services.embeddings.model_folder import ensure_built, version_of
from services.embeddings.source import packaged_source
from services.embeddings.vectors import Embedding

TEXTS = [
    "",
    "Yes.",
    "My locker code is 4711.",
    "Do you remember where we went last summer?",
    "I moved from Hamburg to Lisbon in March, because of the new job at the aquarium.",
    "Naïve café, 東京, 😀 and [SEP] in one line; x = y_1 + 3.5 * z!",
    "The doctor said that I should walk more, so on Sunday Mia and I went up the hill. " * 3,
    "We talked about books, bread, boats and the weather for a whole evening. " * 12,
    "word " * 400,
]
# Embedded by sentence-transformers 5 on the same weights: the first parts of the vector.
PUBLISHED = {"This is an example sentence": [0.067657, 0.063496, 0.048713, 0.079305, 0.037448]}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_built(None, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def encoder(folder: Path) -> OnnxEncoder:
    return OnnxEncoder(folder)


def embed(encoder: OnnxEncoder, texts: list[str]) -> list[Embedding]:
    return encoder.encode(encoder.tokenize(texts))


@pytest.fixture(scope="session")
def exact(encoder: OnnxEncoder) -> list[np.ndarray]:
    """Token outputs of the unquantized graph, special tokens included."""
    source = packaged_source()
    model = build_graph(load_file(source.weights), source.config())
    session = open_session(model.SerializeToString())
    names = ["input_ids", "attention_mask"]
    cut = encoder.tokenize(TEXTS)
    return [session.run(None, feeds([one.ids], names))[0][0] for one in cut]


def test_8_bit_vectors_point_where_the_exact_ones_do(encoder: OnnxEncoder, exact: list[np.ndarray]):
    for text, found, rows in zip(TEXTS, embed(encoder, TEXTS), exact, strict=True):
        mean = rows.mean(axis=0)
        cosine = float(found.vector @ mean) / float(np.linalg.norm(mean))
        # One token has no others to average the rounding out.
        assert cosine >= (0.999 if found.tokens > 4 else 0.9985), text[:40]


def test_the_vectors_are_those_of_sentence_transformers(encoder: OnnxEncoder):
    for text, published in PUBLISHED.items():
        assert embed(encoder, [text])[0].vector[:5] == pytest.approx(published, abs=0.006)


def test_token_vectors_keep_the_exact_model_s_cosines(
    encoder: OnnxEncoder, exact: list[np.ndarray]
):
    found = embed(encoder, TEXTS)[4].token_vectors.vectors.astype(np.float32) / 127
    rows = exact[4][1:-1]
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert found.shape == (len(rows), 64)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(len(rows)), abs=0.03)
    kept = np.corrcoef((found @ found.T).ravel(), (rows @ rows.T).ravel())[0, 1]
    assert kept >= 0.9


def test_a_text_has_the_same_vectors_alone_and_in_any_batch(encoder: OnnxEncoder):
    together = embed(encoder, TEXTS)
    for text, one in zip(TEXTS, together, strict=True):
        alone = embed(encoder, [text])[0]
        assert one.vector == pytest.approx(alone.vector, abs=1e-6)
        parts, alone_parts = one.token_vectors.vectors, alone.token_vectors.vectors
        assert np.abs(parts.astype(int) - alone_parts).max(initial=0) <= 1


def test_vectors_have_unit_length_and_the_stated_size(encoder: OnnxEncoder):
    assert (encoder.info.dimensions, encoder.info.token_dimensions) == (384, 64)
    for one in embed(encoder, TEXTS):
        assert one.vector.dtype == np.float32
        assert np.linalg.norm(one.vector) == pytest.approx(1, abs=1e-5)


def test_tokens_point_at_their_characters(encoder: OnnxEncoder):
    text = "Où est le café? 😀 Yes"
    parts = embed(encoder, [text])[0].token_vectors
    pieces = [text[a:b] for a, b in zip(parts.starts, parts.ends, strict=True)]
    assert pieces == ["Où", "est", "le", "café", "?", "😀", "Yes"]
    assert len(parts.ids) == len(parts.vectors) == 7


def test_markers_that_a_user_writes_are_text(encoder: OnnxEncoder):
    parts = embed(encoder, ["[SEP] [PAD]"])[0].token_vectors
    assert len(parts.ids) == 6
    assert not {0, 102} & set(parts.ids.tolist())


def test_a_long_text_is_cut_and_says_so(encoder: OnnxEncoder):
    short, long = embed(encoder, ["word", "word " * 400])
    assert (short.tokens, short.truncated) == (3, False)
    assert (long.tokens, long.truncated) == (encoder.info.max_tokens, True)
    assert len(long.token_vectors.ids) == encoder.info.max_tokens - 2


def test_similar_texts_are_near(encoder: OnnxEncoder):
    found = embed(encoder, ["Where is my cat?", "My cat has run away.", "Interest rates rose."])
    question, cat, rates = (one.vector for one in found)
    assert question @ cat > question @ rates + 0.2


def test_the_version_names_model_and_build(encoder: OnnxEncoder, folder: Path):
    assert encoder.info.version == version_of(packaged_source()) == folder.name
    assert encoder.info.version.startswith("minilm-l6-v2-q8@")
