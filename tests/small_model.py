"""A static model of a few hundred tokens in the form of the bundled one: installed in no time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DIMS", "SPACE", "described_tokenizer", "write_model"]

DIMS = 8
SPACE = "▁"
MERGES = [
    (SPACE, "t"), ("a", "i"), ("r", "ai"), ("n", "s"), ("rai", "n"), (f"{SPACE}t", "rai"), (f"{SPACE}trai", "n"),
    (SPACE, SPACE), (f"{SPACE}trai", "ns"), ("a", "a"), ("aa", "aa"), ("g", "a"), ("m", "e"), ("ga", "me"),
    (SPACE, "game"),
]  # fmt: skip


def described_tokenizer() -> dict[str, Any]:
    """The tokenizer.json."""
    tokens = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256)), SPACE, *"abcdefghijklmnopqrstuvwxyzäЖ.,"]
    tokens += [merged for left, right in MERGES if (merged := left + right) not in tokens]
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": tokens[number], **added} for number in range(2)],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": SPACE},
                {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(dict.fromkeys(tokens))},
            "merges": [f"{left} {right}" for left, right in MERGES],
        },
    }


def write_model(
    folder: Path, described: dict[str, Any] | None = None, *, seed: int = 0, dims: int = DIMS, **arrays: Any
) -> Path:
    """A folder with the model's files.

    Args:
        folder: which is made.
        described: another tokenizer.json.
        seed: of the vectors.
        dims: of the vectors.
        **arrays: other arrays than a vector of each token.
    """
    from safetensors.numpy import save_file  # noqa: PLC0415 - of an extra

    described = described or described_tokenizer()
    count = len(described["model"].get("vocab", []))
    vectors = np.random.default_rng(seed).normal(size=(count, dims)).astype(np.float16)
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
    save_file(arrays or {"embeddings": vectors}, folder / "model.safetensors")
    return folder
