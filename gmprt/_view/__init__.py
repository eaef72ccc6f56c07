"""How it is seen: a goroutine's stack and creation, counters, and the records these come in.

Uses gmprt._core.  What a user calls of it by a module's name is gmprt.debug.
"""
