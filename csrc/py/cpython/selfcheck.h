/* selfcheck.h - does the interpreter that runs have the layout of the headers? selfcheck.c. */
#ifndef GMPRT_PY_CPYTHON_SELFCHECK_H
#define GMPRT_PY_CPYTHON_SELFCHECK_H

#include "py/cpython/version.h"

const char *selfcheck_built_for(void);
bool selfcheck_version(void); /* false: exception set */
bool selfcheck(void); /* false: this interpreter has another layout, exception set */
extern PyMethodDef selfcheck_functions[];

#endif
