"""Servers and pools of threads, started as their users start them, with threads as goroutines.

    python -m tests.threaded --help

`cases.py` says what is started and what happens to it, `crowd.py` is the clients and the backend
that they make the program wait for, `process.py` the program, `programs/` what a user has written.
"""
