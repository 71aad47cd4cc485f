"""`python -m pgmrl.cli`."""

from pgmrl.cli import main

main()
