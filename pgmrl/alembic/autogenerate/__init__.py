"""What `alembic revision --autogenerate` does with pgmrl's plugin. `pgmrl.alembic.plugin` is what Alembic calls.

The rules, each from what a model declares and what a table has to the operations between them:

- `short_column_rules`: short columns, their indexes, full columns' storage
- `side_table_rules`: the triggers that fill side tables
- `function_rules`: SQL functions
- `alembic_operation_rules`: Alembic's own operations, without what is pgmrl's and with what Alembic does not see
- `prerequisites`: the revision of pgmrl's schema and the rotations that the operations need

`compared_tables` holds what is compared, `comparison` is one run of all rules, `rendering` writes operations and types
into the migration. To add a rule: an operation in `pgmrl.alembic.operations`, how it is done in
`pgmrl.alembic.implementations`, how it is written in `rendering`, and when it is needed in one of the rules.
"""
