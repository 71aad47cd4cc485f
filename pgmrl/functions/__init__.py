"""Typed SQL functions of a Matryoshka column, for BI tools and psql: declared, written as SQL, installed, listed.

`declared` says what is wanted, `place` what that means for one table, `text` writes the statements (`worker` and
`calls` their parts), `installed` talks to a database. They lie below `columns`, whose attachments carry them.
"""

from pgmrl.model.sql_functions import Filter, SqlFunctions

__all__ = ["Filter", "SqlFunctions"]
