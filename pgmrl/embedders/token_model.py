"""A static model as tables: its tokens with their vectors, its merges, and what its tokenizer does besides.

What `pgmrl.embed_text` computes with in the database. That is byte-pair encoding over the whole text, with byte
fallback and without a pre-tokenizer, as in the tokenizer.json of Llama 2 (converted from SentencePiece); any other
tokenizer is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pgmrl.embedders.static import EXTRA, bundled_files
from pgmrl.errors import EmbedderError
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TokenModel", "load_token_model"]


@dataclass(frozen=True, slots=True)
class TokenModel:
    """A static model.

    Attributes:
        tokens: the vocabulary by id; instead of a byte's name its character, where that is no token itself.
        whole: of each token whether its text is encoded as this one token.
        vectors: shape (len(tokens), dims), float16.
        merges: ids of left, right and merged token, by rank.
        joints: the two characters at the joint of each merge, sorted.
        space: stands for each space, and before the text.
        pieces: a regular expression of PostgreSQL's for what is encoded by itself.
        special: tokens that are found in a text before all others.
        unknown: the special token that has no part in a vector.
    """

    tokens: list[str]
    whole: list[bool]
    vectors: NDArray[np.float16]
    merges: list[tuple[int, int, int]]
    joints: list[str]
    space: str
    pieces: str
    special: list[str]
    unknown: str | None

    @property
    def dims(self) -> int:
        """Dimensions of a vector."""
        return int(self.vectors.shape[1])

    @property
    def letters(self) -> list[int]:
        """The tokens of the characters 1 to 127."""
        numbers = {token: number for number, token in enumerate(self.tokens)}
        return [numbers[chr(byte)] for byte in range(1, 128)]

    @property
    def hash(self) -> str:
        """Of all that is stored, as `pgmrl.model_hash_v1` computes it in the database."""
        digest = hashlib.sha256()
        big_endian = self.vectors.astype(">f2")
        for number, (token, whole) in enumerate(zip(self.tokens, self.whole, strict=True)):
            digest.update(f"{number} {int(whole)} {token}\n".encode() + big_endian[number].tobytes())
        digest.update("".join(f"{left} {right} {merged}\n" for left, right, merged in self.merges).encode())
        digest.update("\n".join(self.joints).encode())
        letters = " ".join(map(str, self.letters))
        digest.update(
            "\n".join(
                [self.space, self.pieces, letters, *self.special, *([self.unknown] if self.unknown else [])]
            ).encode()
        )
        return digest.hexdigest()[:16]


def load_token_model(spec: str) -> TokenModel:
    """Read a static model.

    Args:
        spec: `static`, which is the bundled one; or a folder with `tokenizer.json` and `model.safetensors`, as
            model2vec and sentence-transformers save a static model.

    Raises:
        EmbedderError: an extra or a file that is missing, or a model that `pgmrl.embed_text` would compute differently.

    """
    if spec == "static":
        weights, tokenizer = bundled_files()
    else:
        weights, tokenizer = Path(spec) / "model.safetensors", Path(spec) / "tokenizer.json"
        for path in (weights, tokenizer):
            if not os.path.isfile(path):  # noqa: PTH113 - also of a name that is too long
                raise EmbedderError(
                    f"the model {safe_repr(spec)}: expected `static` or a folder with tokenizer.json and "
                    f"model.safetensors, got none with {path.name}"
                )
    try:
        described = json.loads(tokenizer.read_bytes())
    except ValueError as error:
        raise EmbedderError(f"{safe_repr(str(tokenizer))} is no JSON: {error}") from None
    differences = _differences(described)
    if differences:
        raise EmbedderError(
            f"the tokenizer of {safe_repr(spec)} cannot run in the database: {'; '.join(differences)}; embed with this "
            "model in Python, and have `pgmrl query serve` answer questions in SQL"
        )
    return _token_model(described, _vectors(weights))


def _differences(described: Any) -> list[str]:
    """What of a tokenizer.json is another than what the SQL does; nothing where it is the same."""
    if not isinstance(described, dict) or not isinstance(described.get("model"), dict):
        return ["expected a tokenizer.json, got another document"]
    model = described["model"]
    if model.get("type") != "BPE":
        return [f"expected byte-pair encoding (BPE), got {safe_repr(model.get('type'))}"]
    expected = {"dropout": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "ignore_merges": False}
    differences = [
        f"expected {name} {safe_repr(value)}, got {safe_repr(model[name])}"
        for name, value in expected.items()
        if model.get(name) and model[name] != value
    ]
    if not model.get("byte_fallback"):
        differences.append("expected byte_fallback, got none")
    if described.get("pre_tokenizer") is not None:
        differences.append(f"expected no pre-tokenizer, got {safe_repr(described['pre_tokenizer'].get('type'))}")
    if _space(described) is None:
        differences.append("expected a normalizer that prepends what it replaces spaces with, got another")
    special = described.get("added_tokens", [])
    if any(
        token["lstrip"] or token["rstrip"] or token["single_word"] or token["normalized"] for token in special
    ) or any(
        not (text.startswith("<") and text.endswith(">")) or "<" in text[1:] or ">" in text[:-1]
        for text in (token["content"] for token in special)
    ):
        differences.append("expected added tokens such as <s>, which are taken as they are, got others")
    return differences


def _space(described: dict[str, Any]) -> str | None:
    """What the normalizer prepends, and replaces each space with; None where it does anything else."""
    parts = (described.get("normalizer") or {}).get("normalizers", [])
    if [part.get("type") for part in parts] != ["Prepend", "Replace"]:
        return None
    prepend, replace = parts
    same = replace["pattern"] == {"String": " "} and replace["content"] == prepend["prepend"]
    return str(prepend["prepend"]) if same and len(prepend["prepend"]) == 1 else None


def _vectors(weights: Path) -> NDArray[np.float16]:
    try:
        from safetensors.numpy import load_file  # noqa: PLC0415 - of an extra
    except ImportError as error:
        raise EmbedderError(f"a static model needs {error.name}: {EXTRA}") from error
    arrays = load_file(weights)
    if len(arrays) != 1:
        raise EmbedderError(
            f"{safe_repr(str(weights))}: expected one array, a vector of each token, got {', '.join(sorted(arrays))}"
        )
    with np.errstate(over="ignore"):  # an overflow becomes infinity, which is named below
        vectors: NDArray[np.float16] = next(iter(arrays.values())).astype(np.float16)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise EmbedderError(f"{safe_repr(str(weights))}: expected rows of finite numbers that fit half precision")
    return vectors


def _token_model(described: dict[str, Any], vectors: NDArray[np.float16]) -> TokenModel:
    vocabulary: dict[str, int] = described["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    if [vocabulary[token] for token in tokens] != list(range(len(vectors))):
        raise EmbedderError(f"expected a vector of each of {len(tokens)} tokens, got {len(vectors)} vectors")
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in described["model"]["merges"]]
    joints = {left[-1] + right[0] for left, right in pairs}
    space = str(_space(described))
    # the SQL cuts texts where a word ends and looks up single characters
    if any(joint[1] == space != joint[0] for joint in joints) or not set("".join(joints)) <= vocabulary.keys():
        raise EmbedderError("expected merges of characters that are tokens, within words, got others")
    if not vocabulary.keys() >= {f"<0x{byte:02X}>" for byte in range(256)}:
        raise EmbedderError("expected a token of each byte, such as <0x0A>, got fewer")
    special = [token["content"] for token in described.get("added_tokens", [])]
    whole = _whole(described, tokens, special)
    for byte in range(1, 128):
        if chr(byte) not in vocabulary:  # a character that is this byte: found like a word
            number = vocabulary[f"<0x{byte:02X}>"]
            tokens[number], whole[number] = chr(byte), True
    return TokenModel(
        tokens,
        whole,
        vectors,
        [(vocabulary[left], vocabulary[right], vocabulary[left + right]) for left, right in pairs],
        sorted(joints),
        space,
        _pieces(space, joints),
        special,
        described["model"].get("unk_token"),
    )


def _pieces(space: str, joints: set[str]) -> str:
    """A regular expression: words with the spaces before them, signs where no merge joins them to letters, controls."""
    neighbours: dict[str, set[str]] = {}
    for joint in joints:
        neighbours.setdefault(joint[0], set()).add(joint[1])
        neighbours.setdefault(joint[1], set()).add(joint[0])
    reached = {chr(code) for code in range(1, 128) if not chr(code).isalnum()} - {" "}
    single = {sign for sign in reached if sign not in neighbours}
    signs: set[str] = set()
    while reached:
        signs |= reached
        reached = set().union(*(neighbours.get(sign, set()) for sign in reached)) - signs - {space}
    if any(sign.isascii() and sign.isalnum() for sign in signs):
        return f"{space}*[^{space}]+|{space}+"
    return "|".join(
        [
            f"{space}*[^{space}{_escaped(signs)}]+",
            *([f"{space}*[{_escaped(signs - single)}]+"] if signs - single else []),
            *([f"[{_escaped(single)}]"] if single else []),
            f"{space}+",
        ]
    )


def _escaped(characters: set[str]) -> str:
    """Within the brackets of a regular expression."""
    return "".join(f"\\u{ord(character):04x}" for character in sorted(characters))


def _whole(described: dict[str, Any], tokens: list[str], special: list[str]) -> list[bool]:
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415 - of an extra
    except ImportError as error:
        raise EmbedderError(f"a static model needs {error.name}: {EXTRA}") from error
    bare = Tokenizer.from_str(json.dumps({**described, "normalizer": None}))
    encodings = bare.encode_batch(tokens, add_special_tokens=False)
    return [encoding.ids == [number] and tokens[number] not in special for number, encoding in enumerate(encodings)]
