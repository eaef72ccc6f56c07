"""How it starts and ends: loading the C half, the first go(), run(), failures, the process's end.

Uses gmprt._core, gmprt._api, gmprt._view and gmprt.debug.
"""
