"""sentence-transformers as a peer: answers {"texts": [...]} once all of them are embedded."""

from __future__ import annotations

import argparse
import json
import sys

import torch
from sentence_transformers import SentenceTransformer


def main() -> None:
    """Serve requests, a line each, until the input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = SentenceTransformer(given.model, device="cpu")
    # What the product's encoder reads of a text at most; the folder's own limit may be lower.
    model.max_seq_length = 256
    for line in sys.stdin:
        vectors = model.encode(json.loads(line)["texts"], batch_size=32, show_progress_bar=False)
        print(json.dumps({"embedded": len(vectors)}), flush=True)


if __name__ == "__main__":
    main()
