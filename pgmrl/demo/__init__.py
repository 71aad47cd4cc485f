"""The demo and its text: the docstrings of Python's standard library."""
