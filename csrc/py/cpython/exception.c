/* exception.c - the exception that is being raised, as one object. */
#include "py/cpython/exception.h"

#ifdef HAVE_CURRENT_EXC_TRIPLE
static PyObject *last_resort; /* a MemoryError */

static PyObject *instance_of(PyObject *type, PyObject *value) {
  if (!value || value == Py_None) return PyObject_CallNoArgs(type);
  if (PyTuple_Check(value)) return PyObject_Call(type, value, NULL);
  return PyObject_CallOneArg(type, value);
}

/* An exception may be a type and what its instance is to be made from.  Without memory PyErr_NormalizeException tries
 * again and again, and aborts: then all share the MemoryError that was made before. */
static void normalize(PyObject **type, PyObject **value, PyObject **tb) {
  if (*value && PyExceptionInstance_Check(*value)) return;
  PyObject *made = instance_of(*type, *value);
  if (!made && !PyErr_ExceptionMatches(PyExc_MemoryError)) { /* that is raised instead */
    Py_XDECREF(*type);
    Py_XDECREF(*value);
    Py_XDECREF(*tb);
    PyErr_Fetch(type, value, tb);
    PyErr_NormalizeException(type, value, tb);
    return;
  }
  PyErr_Clear();
  Py_XSETREF(*value, made ? made : Py_NewRef(last_resort));
}
#endif

/* At import. false: exception set. */
bool exception_init(void) {
#ifdef HAVE_CURRENT_EXC_TRIPLE
  return last_resort || (last_resort = PyObject_CallNoArgs(PyExc_MemoryError));
#else
  return true; /* the interpreter keeps one */
#endif
}

/* The exception being raised, normalized, with its traceback; the indicator is cleared. */
PyObject *take_exception(void) {
#ifdef HAVE_CURRENT_EXC_TRIPLE
  PyObject *type, *value, *tb;
  PyErr_Fetch(&type, &value, &tb);
  normalize(&type, &value, &tb);
  if (tb) PyException_SetTraceback(value, tb);
  Py_XDECREF(type);
  Py_XDECREF(tb);
  return value;
#else
  return PyErr_GetRaisedException();
#endif
}

void raise_exception(PyObject *exc) {
#ifdef HAVE_CURRENT_EXC_TRIPLE
  PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(exc)), exc, PyException_GetTraceback(exc));
#else
  PyErr_SetRaisedException(exc);
#endif
}
