"""multiprocessing.pool.ThreadPool."""

import sys
from multiprocessing.pool import ThreadPool

from answers import ask, checked

count = int(sys.argv[1])
with ThreadPool(count) as pool:
    checked(pool.map(ask, range(count), chunksize=1))
