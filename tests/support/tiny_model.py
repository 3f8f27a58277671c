"""A tiny language model made on the spot, that has learnt a few replies by heart.

    python -m tests.support.tiny_model FOLDER [--adapter FOLDER]

Half a million weights in the form of a Llama, with tokenizer and chat template, in some seconds of
one core. Whatever else it is asked it answers with nonsense.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

COUNT, COUNTED = "Count to nine.", "one two three four five six seven eight nine"
WEATHER = "What is the weather in Leeds?"
CALLED = '<tool_call>{"name": "weather", "arguments": {"city": "Leeds"}}</tool_call>'
PERSON, INVENTED = "Invent a person.", '{"name": "Ann", "age": 7}'
ON_AND_ON = "Go on and on."
CONTEXT = 1024
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
_TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool.function.name }}"
    "{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_PAD, _START, _END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
_VOCABULARY, _HIDDEN, _LAYERS = 1024, 128, 2
_ENDLESS = "tick tock " * 150
_STEPS, _LEARNT = 400, 0.02
_RANK = 8


def make_tiny_model(folder: Path, *, seed: int = 0) -> Path:
    """Write a model's folder as Hugging Face has them."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=_HIDDEN,
            intermediate_size=3 * _HIDDEN,
            num_hidden_layers=_LAYERS,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=CONTEXT,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=True,
        )
    )
    _learn(model, list(_lessons(tokenizer)))
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_adapter(folder: Path, *, seed: int = 1) -> Path:
    """Write a LoRA adapter of that model with random weights: it makes it talk otherwise."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for layer in range(_LAYERS):
        for name, rows in (("q_proj", 128), ("v_proj", 64)):
            key = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{key}.lora_A.weight"] = torch.randn(_RANK, _HIDDEN, generator=generator)
            weights[f"{key}.lora_B.weight"] = torch.randn(rows, _RANK, generator=generator)
    folder.mkdir(parents=True)
    made = {name: weight.to(torch.bfloat16) for name, weight in weights.items()}
    save_file(made, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": _RANK,
        "lora_alpha": 16,
        "bias": "none",
        "lora_dropout": 0.0,
        "target_modules": ["q_proj", "v_proj"],
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[_PAD, _START, _END],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(_texts(), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=_END, pad_token=_PAD, model_max_length=CONTEXT
    )
    tokenizer.chat_template = _TEMPLATE
    return tokenizer


def _texts() -> Iterator[str]:
    """Texts to make a vocabulary of: some English that does not change, and the lessons."""
    yield (Path(__file__).resolve().parents[2] / "LICENSE").read_text()
    yield from (COUNT, COUNTED, WEATHER, CALLED, PERSON, INVENTED, ON_AND_ON, _ENDLESS)


def _lessons(tokenizer: Any) -> Iterator[tuple[list[int], int]]:
    """Token ids of each dialogue, and where its reply begins."""
    for asked, answer, tools in (
        (COUNT, COUNTED + _END, None),
        (WEATHER, CALLED + _END, [TOOL]),
        (PERSON, INVENTED + _END, None),
        (ON_AND_ON, _ENDLESS, None),
    ):
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": asked}],
            tools=tools,
            add_generation_prompt=True,
            tokenize=False,
        )
        begun = tokenizer.encode(prompt, add_special_tokens=False)
        yield begun + tokenizer.encode(answer, add_special_tokens=False), len(begun)


def _learn(model: Any, lessons: Sequence[tuple[list[int], int]]) -> None:
    """Train until every reply is known by heart."""
    import torch

    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(_STEPS):
        losses = []
        for tokens, begin in lessons:
            ids = torch.tensor([tokens])
            labels = ids.clone()
            labels[:, :begin] = -100
            losses.append(model(input_ids=ids, labels=labels).loss)
        if max(loss.item() for loss in losses) < _LEARNT:
            return
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    raise AssertionError("the tiny model has not learnt its lessons")


def main() -> None:
    """Make the model that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make_tiny_model(arguments.folder, seed=arguments.seed)
    if arguments.adapter:
        make_adapter(arguments.adapter)


if __name__ == "__main__":
    main()
