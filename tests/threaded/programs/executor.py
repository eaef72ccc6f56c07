"""concurrent.futures: a pool of as many threads as there are calls."""

import sys
from concurrent.futures import ThreadPoolExecutor

from answers import ask, checked

count = int(sys.argv[1])
with ThreadPoolExecutor(count) as pool:
    checked(list(pool.map(ask, range(count))))
