/* module.h - the module gmprt._core: module.c, control.c, and what makes it active: activate.c. */
#ifndef GMPRT_PY_MODULE_H
#define GMPRT_PY_MODULE_H

#include "py/cpython/version.h"

bool activate(void); /* once, at the first use; false: exception set, and nothing has happened */
void deactivate(void); /* all that was replaced is put back */
extern PyMethodDef control_functions[];

#endif
