"""The small real model's GGUF file as a folder that vLLM loads."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.gguf import small_model


def make_gguf_folder(folder: Path) -> Path:
    """Write the weights as bfloat16 safetensors, with tokenizer and chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = small_model()
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name)
    model = model.to(torch.bfloat16)
    # What was quantized in the file no longer is.
    model.hf_quantizer, model.is_quantized = None, False
    model.config.__dict__.pop("quantization_config", None)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    make_gguf_folder(Path(sys.argv[1]))
