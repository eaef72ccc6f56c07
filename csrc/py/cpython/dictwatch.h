/* dictwatch.h - has a dict been changed? dictwatch.c. */
#ifndef GMPRT_PY_CPYTHON_DICTWATCH_H
#define GMPRT_PY_CPYTHON_DICTWATCH_H

#include "py/cpython/version.h"

int dict_watch(PyObject *dict); /* one for the process; -1: exception set */
bool dict_has_changed(PyObject *dict); /* since this was asked last */

#endif
