"""Declare: columns, metrics, the definition of the short vector, and the DDL that follows from them."""
