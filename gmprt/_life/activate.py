"""What is imported when gmprt becomes active (csrc/py/activate.c), at the first go() or run().

Goroutines are shown to `threading`, and reports of their failures are made with `traceback`.  Both
take longer to import than all of gmprt, and bad times are no time to begin with it.
"""

from gmprt._life import excepthook as excepthook
from gmprt._life import threads as threads
