"""CPython's test_multiprocessing_spawn, where it is left out and what it consists of is not."""

from test import _test_multiprocessing  # type: ignore[import-not-found]

_test_multiprocessing.install_tests_in_module_dict(globals(), "spawn")
