"""The demo without its output: the docstrings of Python's standard library, their table, questions and answers."""
