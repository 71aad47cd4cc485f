"""What is known of models beyond their files, and the user's own additions to it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import pgmrl
from pgmrl.errors import EmbedderError
from pgmrl.model_cards import ModelCard, model_card, truncation_advice

NOMIC = "sentence-transformers:nomic-ai/nomic-embed-text-v1.5"
OWN = """
["openai:house-model"]
dims = 512
trained_dims = [256, 64]
normalise = false
query_prompt = "q: "

["sentence-transformers:nomic-ai/nomic-embed-text-v1.5"]
dims = 768
query_prompt = "clustering: "
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's file."""
    path = tmp_path / "models.toml"
    path.write_text(OWN)
    monkeypatch.setenv("PGMRL_MODELS", str(path))
    return path


def test_every_card_can_be_read_and_says_where_it_is_from() -> None:
    """Names as `load_embedder` takes them."""
    names = tomllib.loads((Path(pgmrl.__file__).parent / "models.toml").read_text(encoding="utf-8"))
    assert len(names) >= 10
    for name in names:
        card = model_card(name)
        assert card is not None
        assert card.source.startswith("https://")
        assert card.dims is not None
        assert name.startswith(("sentence-transformers:", "openai:"))


def test_options_are_no_part_of_the_name() -> None:
    """In brackets or behind a question mark."""
    card = model_card(NOMIC)
    assert card is not None
    assert (card.layer_norm, card.document_prompt) == (True, "search_document: ")
    assert model_card(f"{NOMIC}?dtype=float16") == model_card(f"{NOMIC} (truncate_dim=256)") == card
    assert model_card("static") is None


def test_the_users_file_comes_first(own: Path) -> None:
    """It adds cards, and replaces them whole; it is read again when it has changed."""
    assert model_card("openai:house-model") == ModelCard(512, (64, 256), normalise=False, query_prompt="q: ")
    assert model_card(NOMIC) == ModelCard(768, query_prompt="clustering: ")
    assert model_card("openai:text-embedding-3-large") is not None
    own.unlink()
    with pytest.raises(EmbedderError, match=r"PGMRL_MODELS=.*No such file"):
        model_card(NOMIC)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = [", "models.toml: "),
        ("x = 3", "'x': expected a table"),
        ('["openai:x"]\nquery_fields = { n = 3 }', "expected texts as fields of a request"),
        ('["x"]\ndim = 3', "got 'dim'"),
        ('["x"]\ndims = "3"', "dims: expected int, got '3'"),
        ('["x"]\ndims = true', "dims: expected int, got True"),
        ('["x"]\ndims = 8\ntrained_dims = [4, 9]', "from 1 to dims"),
        ('["x"]\ntrained_dims = ["4"]', "from 1 to dims"),
        ('["x"]\ntrained_from = 0', "from 1 to dims"),
        ('["x"]\ndims = 8', "'x': expected a model's name without options"),
        ('["openai:x?dimensions=8"]\ndims = 8', "expected a model's name without options"),
    ],
)
def test_a_card_that_cannot_be_is_named(own: Path, text: str, message: str) -> None:
    """With its file."""
    own.write_text(text)
    with pytest.raises(EmbedderError, match=message):
        model_card("x")


def test_a_truncation_that_was_not_trained() -> None:
    """Recommends the lengths that were, and a rotation; of what nobody knows nothing is said."""
    advice = truncation_advice(NOMIC, 100, 768)
    assert advice is not None
    assert "64, 128, 256, 512, 768 dimensions, not to 100" in advice
    assert "rotation" in advice
    for spec, dims in ((NOMIC, 128), ("sentence-transformers:Qwen/Qwen3-Embedding-0.6B", 100), ("static", 3)):
        assert truncation_advice(spec, dims, 1024) is None
    assert truncation_advice("sentence-transformers:Qwen/Qwen3-Embedding-0.6B", 16, 1024) is not None
    assert truncation_advice("sentence-transformers:mixedbread-ai/mxbai-embed-large-v1", 3, 1024) is None
    card = model_card("sentence-transformers:Qwen/Qwen3-Embedding-0.6B")
    assert card is not None
    assert card.truncations(1024) == (32, 64, 128, 256, 512, 1024)
    assert ModelCard(trained_from=300).truncations(256) == (256,)
