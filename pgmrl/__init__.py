"""Two-stage (Matryoshka) vector search in PostgreSQL applications that already exist.

A table keeps each embedding in full and, beside it, a short version under an HNSW index. One statement takes a
shortlist from the short index and ranks it exactly by the full vectors.
"""

from pgmrl.check import check
from pgmrl.columns import Matryoshka, add_short, add_side_table, matryoshka
from pgmrl.ddl import Hnsw
from pgmrl.diverse import search_diverse
from pgmrl.errors import PgmrlError
from pgmrl.evaluate import evaluate
from pgmrl.explain import Explanation, assert_index_used, explain
from pgmrl.fit import fit
from pgmrl.fulltext import FullText, full_text, trigram_index
from pgmrl.functions import SqlFunctions
from pgmrl.funnel import search_funnel
from pgmrl.groups import search_groups
from pgmrl.hybrid import Rrf, Weighted, search_hybrid
from pgmrl.ingest import ingest
from pgmrl.like import combine, like
from pgmrl.plain import sql
from pgmrl.reflect import reflect
from pgmrl.rerank import rerank
from pgmrl.retrievers import Nearest, Trigrams, Words
from pgmrl.rotation import Rotation
from pgmrl.search import search, search_many
from pgmrl.settings import load_settings
from pgmrl.shortening import Definition, Prefix, Short
from pgmrl.sql_functions import add_functions, install_functions
from pgmrl.vectors import Vector

__all__ = [
    "Definition",
    "Explanation",
    "FullText",
    "Hnsw",
    "Matryoshka",
    "Nearest",
    "PgmrlError",
    "Prefix",
    "Rotation",
    "Rrf",
    "Short",
    "SqlFunctions",
    "Trigrams",
    "Vector",
    "Weighted",
    "Words",
    "add_functions",
    "add_short",
    "add_side_table",
    "assert_index_used",
    "check",
    "combine",
    "evaluate",
    "explain",
    "fit",
    "full_text",
    "ingest",
    "install_functions",
    "like",
    "load_settings",
    "matryoshka",
    "reflect",
    "rerank",
    "search",
    "search_diverse",
    "search_funnel",
    "search_groups",
    "search_hybrid",
    "search_many",
    "sql",
    "trigram_index",
]
