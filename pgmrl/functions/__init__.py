"""Typed SQL functions that search a full vector's column, for BI tools and psql: written as SQL, installed, listed.

What is declared is `pgmrl.model.sql_functions`. Which installed function is where, for a table `packages`:

    packages_search            search_function
    packages_similar           similar_function
    packages_search_named      search_named_function; its queries: named_queries
    packages_search_diverse    diverse_function
    packages_search_groups     groups_function
    packages_hybrid            hybrid_function
    packages_search_text, …    text_functions, for those above but similar and named; its models: text_models
    packages_vector            vector_function
    packages_related, …_stored related_views
    packages_search_v1, …      search_worker: the PL/pgSQL behind the first five, with a `ShortlistRanking` of each

`searched_column` has the names and types they share, `plpgsql` what makes text of PL/pgSQL, `install_statements` all
statements in order, `install` and `installed` run them and read the catalogue.
"""

from pgmrl.model.sql_functions import Filter, SqlFunctions

__all__ = ["Filter", "SqlFunctions"]
