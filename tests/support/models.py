"""Tiny embedding models for tests, made on the spot."""

from __future__ import annotations

import json
import string
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

HIDDEN, LAYERS, POSITIONS = 96, 2, 24
WORDS = ["the", "red", "boat", "sails", "home", "blue", "bird", "sings"]


def write_tiny_bert(folder: Path, *, pooling: str = "mean_tokens", **config: object) -> Path:
    """A sentence-transformers folder with random weights and a vocabulary of letters and words."""
    folder.mkdir(parents=True)
    vocabulary = _write_tokenizer(folder / "tokenizer.json")
    described = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": HIDDEN,
        "num_attention_heads": 4,
        "num_hidden_layers": LAYERS,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": POSITIONS,
    }
    (folder / "config.json").write_text(json.dumps(described | config))
    (folder / "1_Pooling").mkdir()
    pooled = {f"pooling_mode_{pooling}": True, "word_embedding_dimension": HIDDEN}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooled))
    save_file(_weights(vocabulary), folder / "model.safetensors")
    return folder


def _write_tokenizer(path: Path) -> int:
    letters = [*string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase)]
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *WORDS]
    vocabulary = {entry: number for number, entry in enumerate(entries)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(path))
    return len(entries)


def _weights(vocabulary: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    shapes = {
        "embeddings.word_embeddings.weight": (vocabulary, HIDDEN),
        "embeddings.position_embeddings.weight": (POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": (2, HIDDEN),
    }
    norms = ["embeddings.LayerNorm"]
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        for part in ("query", "key", "value"):
            shapes[f"{layer}.attention.self.{part}.weight"] = (HIDDEN, HIDDEN)
        shapes[f"{layer}.attention.output.dense.weight"] = (HIDDEN, HIDDEN)
        shapes[f"{layer}.intermediate.dense.weight"] = (2 * HIDDEN, HIDDEN)
        shapes[f"{layer}.output.dense.weight"] = (HIDDEN, 2 * HIDDEN)
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    made = {name: rng.normal(0, 0.2, shape) for name, shape in shapes.items()}
    for name, shape in shapes.items():
        if name.startswith("encoder"):
            made[name.replace("weight", "bias")] = rng.normal(0, 0.1, shape[0])
    for norm in norms:
        made[f"{norm}.weight"], made[f"{norm}.bias"] = np.ones(HIDDEN), np.zeros(HIDDEN)
    return {name: value.astype(np.float32) for name, value in made.items()}
