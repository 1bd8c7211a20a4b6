"""Searches replayed on tables of scores: what `benchmarks/search.py` is made of."""
