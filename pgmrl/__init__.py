"""Two-stage (Matryoshka) vector search in PostgreSQL applications that already exist.

A table keeps each embedding in full and, beside it, a short version under an HNSW index. One statement takes a
shortlist from the short index and ranks it exactly by the full vectors.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from pgmrl.database.check_schema import check_schema
from pgmrl.database.reflection import reflect
from pgmrl.database.settings import load_settings
from pgmrl.errors import PgmrlError
from pgmrl.model.chunks import Chunks, add_chunks
from pgmrl.model.columns import Matryoshka, add_short, add_side_table, matryoshka
from pgmrl.model.embed import Embed
from pgmrl.model.filter_index import FilterIndex
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.rotation import Rotation
from pgmrl.model.shortening import Definition, Prefix, Short
from pgmrl.model.sql_functions import SqlFunctions
from pgmrl.model.vectors import VectorArray
from pgmrl.searching.compile_sql import compile_sql
from pgmrl.searching.more_like_this import average_vectors, more_like_this
from pgmrl.searching.options import SearchOptions
from pgmrl.searching.search import search
from pgmrl.searching.search_many import search_many

if TYPE_CHECKING:
    from pgmrl.evaluation import evaluate
    from pgmrl.explanation import Explanation, assert_index_used, explain
    from pgmrl.functions.install import add_functions, install_functions
    from pgmrl.ingestion.ingest import ingest
    from pgmrl.measure.fit_rotation import fit_rotation
    from pgmrl.model.fulltext import FullText, full_text, trigram_index
    from pgmrl.searching.diverse import search_diverse
    from pgmrl.searching.funnel import search_funnel
    from pgmrl.searching.groups import search_groups
    from pgmrl.searching.hybrid import Rrf, Weighted, search_hybrid
    from pgmrl.searching.rerank import rerank
    from pgmrl.searching.retrievers import Nearest, Trigrams, Words
    from pgmrl.searching.text_query import query_vector

__all__ = [
    "Chunks",
    "Definition",
    "Embed",
    "Explanation",
    "FilterIndex",
    "FullText",
    "Hnsw",
    "Matryoshka",
    "Nearest",
    "PgmrlError",
    "Prefix",
    "Rotation",
    "Rrf",
    "SearchOptions",
    "Short",
    "SqlFunctions",
    "Trigrams",
    "VectorArray",
    "Weighted",
    "Words",
    "add_chunks",
    "add_functions",
    "add_short",
    "add_side_table",
    "assert_index_used",
    "average_vectors",
    "check_schema",
    "compile_sql",
    "evaluate",
    "explain",
    "fit_rotation",
    "full_text",
    "ingest",
    "install_functions",
    "load_settings",
    "matryoshka",
    "more_like_this",
    "query_vector",
    "reflect",
    "rerank",
    "search",
    "search_diverse",
    "search_funnel",
    "search_groups",
    "search_hybrid",
    "search_many",
    "trigram_index",
]

# What not every application uses is loaded when it is first asked for.
_MODULES: Final = {
    "Explanation": "pgmrl.explanation",
    "FullText": "pgmrl.model.fulltext",
    "Nearest": "pgmrl.searching.retrievers",
    "Rrf": "pgmrl.searching.hybrid",
    "Trigrams": "pgmrl.searching.retrievers",
    "Weighted": "pgmrl.searching.hybrid",
    "Words": "pgmrl.searching.retrievers",
    "add_functions": "pgmrl.functions.install",
    "assert_index_used": "pgmrl.explanation",
    "evaluate": "pgmrl.evaluation",
    "explain": "pgmrl.explanation",
    "fit_rotation": "pgmrl.measure.fit_rotation",
    "full_text": "pgmrl.model.fulltext",
    "ingest": "pgmrl.ingestion.ingest",
    "install_functions": "pgmrl.functions.install",
    "query_vector": "pgmrl.searching.text_query",
    "rerank": "pgmrl.searching.rerank",
    "search_diverse": "pgmrl.searching.diverse",
    "search_funnel": "pgmrl.searching.funnel",
    "search_groups": "pgmrl.searching.groups",
    "search_hybrid": "pgmrl.searching.hybrid",
    "trigram_index": "pgmrl.model.fulltext",
}

if not TYPE_CHECKING:  # a type checker sees the imports above, and errors in names

    def __getattr__(name: str) -> Any:
        module = _MODULES.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(module), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
