"""Embedding models: one protocol, two implementations, and whatever a user brings.

Nothing heavy is imported before a model is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from pgmrl.embedders.base import Embedder, as_texts, checked, embed_batches, embed_query, normalised, zero_vectors
from pgmrl.errors import EmbedderError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = [
    "DEFAULT",
    "Embedder",
    "as_texts",
    "checked",
    "embed_batches",
    "embed_query",
    "embedder",
    "normalised",
    "zero_vectors",
]

DEFAULT: Final = "static"

_FORMS: Final = "`static`, `sentence-transformers:<model name or folder>` or `package.module:attribute`"
_MEMBERS: Final = ("name", "dims", "trained_dims", "embed_documents", "embed_queries")


def embedder(spec: str = DEFAULT) -> Embedder:
    """The model that a command line names.

    Args:
        spec: one of

            - `static`: the bundled model, see `pgmrl.embedders.static`;
            - `sentence-transformers:<model>`: a name on the Hugging Face hub or a folder, see
              `pgmrl.embedders.sentence_transformers`;
            - `package.module:attribute`: an `Embedder` of the user's own, or a class or function that gives one
              when called without arguments.

            The `name` of an embedder made from one of the first two is such a spec again.

    Raises:
        EmbedderError: unknown form, an extra or a module that is not installed, a model that cannot be loaded,
            an attribute that is no `Embedder`.

    """
    scheme, colon, rest = spec.partition(":")
    if scheme == "static" and rest in {"", "l2_supercat_256"}:
        from pgmrl.embedders.static import StaticEmbedder  # noqa: PLC0415 - only who asks needs the extra

        return StaticEmbedder()
    if scheme == "sentence-transformers" and rest:
        from pgmrl.embedders.sentence_transformers import SentenceTransformersEmbedder  # noqa: PLC0415

        return SentenceTransformersEmbedder(rest)
    if colon and scheme != "static" and rest.isidentifier() and all(part.isidentifier() for part in scheme.split(".")):
        return _own(scheme, rest)
    raise EmbedderError(f"unknown embedder {spec!r}: give {_FORMS}")


def _own(module_name: str, attribute: str) -> Embedder:
    spec = f"{module_name}:{attribute}"
    try:
        found = getattr(_module(module_name), attribute)
    except AttributeError:
        raise EmbedderError(f"embedder {spec}: {module_name} has no attribute {attribute!r}") from None
    # a class has the members of its instances, so isinstance alone would take it for an embedder
    if isinstance(found, type) or (callable(found) and not isinstance(found, Embedder)):
        found = _called(found, spec)
    return _valid(found, spec)


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            raise EmbedderError(
                f"no module {missing!r}: give {_FORMS}, and install the module or run where it is"
            ) from None
        raise EmbedderError(f"importing {name} needs {missing!r}, which is not installed") from error
    except Exception as error:  # user code
        raise EmbedderError(f"importing {name} failed: {type(error).__name__}: {error}") from error


def _called(factory: Any, spec: str) -> Any:
    try:
        return factory()
    except EmbedderError:
        raise
    except Exception as error:  # user code
        raise EmbedderError(f"embedder {spec}: calling it failed: {type(error).__name__}: {error}") from error


def _valid(found: Any, spec: str) -> Embedder:
    missing = [member for member in _MEMBERS if not hasattr(found, member)]
    if missing:
        kind = type(found).__name__
        raise EmbedderError(f"embedder {spec} is a {kind} without {', '.join(missing)}: see pgmrl.embedders.Embedder")
    _check_dims(found, spec)
    result: Embedder = found
    return result


def _check_dims(found: Any, spec: str) -> None:
    dims, trained = found.dims, tuple(found.trained_dims)
    if not isinstance(dims, int) or dims < 1:
        raise EmbedderError(f"embedder {spec}: dims is {dims!r}, expected a positive number")
    if trained != tuple(sorted(trained)) or any(not 0 < one <= dims for one in trained):
        raise EmbedderError(
            f"embedder {spec}: trained_dims {trained} should ascend and lie within its {dims} dimensions"
        )
