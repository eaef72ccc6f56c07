"""The command line, `python -m gmprt`.

A program like others: of gmprt it uses what is public, and gmprt._core for facts about the machine.
"""
