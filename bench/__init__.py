"""Benchmarks of gmprt beside its peers: ``python -m bench.peers``; see README.md."""
