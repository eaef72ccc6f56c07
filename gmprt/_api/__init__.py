"""What a user calls, where it is not C: exceptions, channel types, timers, once, ends of groups.

Uses gmprt._core.  `errors` uses nothing: gmprt._core imports it while it starts.
"""
