"""A small model that needs no network and no account: 256 dimensions, Matryoshka-trained, thousands of texts a second.

A vector is the mean of token vectors, so word order has no effect. Use it for first trials and for keyword-like texts;
a sentence-transformers model ranks better and takes some hundred times longer.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from pgmrl.embedders.base import text_list
from pgmrl.errors import EmbedderError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model2vec import StaticModel
    from numpy.typing import NDArray

__all__ = ["EXTRA", "StaticEmbedder", "bundled_files"]

_WEIGHTS: Final = "weights/l2_supercat_256.safetensors"
_TOKENIZER: Final = "tokenizers/l2_supercat_tokenizer_config.json"
EXTRA: Final = "install it with: pip install 'pgmrl[local]'"
_BATCH: Final = 1024  # texts; larger ones are not faster and hold every token's vector of a batch in memory


class StaticEmbedder:
    """WordLlama's l2_supercat, loaded from the files in the `wordllama` wheel.

    Documents and queries are embedded alike. Vectors have unit length; a text without a known token (an empty one)
    has a zero vector. Texts are never truncated.

    Attributes:
        name: `static:l2_supercat_256`, which `load_embedder` accepts as well.
        dims: 256.
        trained_dims: 64, 128 and 256. (The training configuration lists 64, 128, 256, 512 and 1024 dimensions; the
            wheel has the first 256.)

    Raises:
        EmbedderError: model2vec or wordllama is not installed, or wordllama is another version.

    """

    name: Final = "static:l2_supercat_256"
    dims: Final = 256
    trained_dims: Final = (64, 128, 256)

    def __init__(self) -> None:
        self._model = _load()

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of unit length; shape (len(texts), 256), float32."""
        batch = text_list(texts)
        if not batch:
            return np.empty((0, self.dims), np.float32)
        # its multiprocessing would set an environment variable for the whole process, and is no faster:
        # the tokenizer uses every core as it is
        vectors = self._model.encode(batch, batch_size=_BATCH, use_multiprocessing=False)
        return cast("NDArray[np.float32]", vectors)

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of unit length; shape (len(texts), 256), float32."""
        return self.embed_documents(texts)

    def count_tokens(self, text: str) -> int:
        """How many tokens a text has."""
        return len(self._model.tokenizer.encode(text, add_special_tokens=False).ids)


def _load() -> StaticModel:
    try:
        from model2vec import StaticModel  # noqa: PLC0415 - of an extra, and a fifth of a second
        from safetensors.numpy import load_file  # noqa: PLC0415
        from tokenizers import Tokenizer  # noqa: PLC0415
    except ImportError as error:
        raise EmbedderError(f"the static model needs {error.name}: {EXTRA}") from error
    # half precision on disk: the mean is faster, and exact, in single
    weights, tokenizer_json = bundled_files()
    vectors: Any = load_file(weights)["embedding.weight"].astype(np.float32)
    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    return StaticModel(vectors, tokenizer, normalize=True, max_length=None)


def bundled_files() -> tuple[Path, Path]:
    """The model's weights and its tokenizer.json.

    Raises:
        EmbedderError: wordllama is not installed, or is another version.
    """
    return _bundled(_WEIGHTS), _bundled(_TOKENIZER)


def _bundled(name: str) -> Path:
    """A file of the `wordllama` wheel, which is not imported: it configures the root logger."""
    spec = importlib.util.find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise EmbedderError(f"the static model needs the files of wordllama: {EXTRA}")
    path = Path(spec.origin).parent / name
    if not path.is_file():
        raise EmbedderError(f"wordllama is installed without {name}: {EXTRA}, which requires the right version")
    return path
