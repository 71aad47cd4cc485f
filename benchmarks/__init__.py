"""pgmrl beside its peers: `python -m benchmarks all`, then `python -m benchmarks report`."""
