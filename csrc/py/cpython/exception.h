/* exception.h - the exception that is being raised, as an object: exception.c. */
#ifndef GMPRT_PY_CPYTHON_EXCEPTION_H
#define GMPRT_PY_CPYTHON_EXCEPTION_H

#include "py/cpython/version.h"

bool exception_init(void); /* at import; false: exception set */
PyObject *take_exception(void); /* new reference */
void raise_exception(PyObject *exc); /* takes the reference; as it is, what is being handled does not become its context */

/* What is being raised stands aside while `call` is made. */
#ifdef HAVE_CURRENT_EXC_TRIPLE
#define ASIDE(call) \
  do { \
    PyObject *type_, *value_, *tb_; \
    PyErr_Fetch(&type_, &value_, &tb_); \
    call; \
    PyErr_Restore(type_, value_, tb_); \
  } while (0)
#else
#define ASIDE(call) \
  do { \
    PyObject *exc_ = PyErr_GetRaisedException(); \
    call; \
    PyErr_SetRaisedException(exc_); \
  } while (0)
#endif

#endif
