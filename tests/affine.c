/* An extension module that calls Python, and looks on which thread it was called and on which it goes on.
 * With -DBOUND it keeps something per thread meanwhile. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef BOUND
static __thread int inside;
#else
static int inside;
#endif

static PyObject *call(PyObject *self, PyObject *fn) {
  long before = syscall(SYS_gettid);
  inside++;
  PyObject *r = PyObject_CallNoArgs(fn);
  inside--;
  if (!r) return NULL;
  return Py_BuildValue("(NllO)", r, before, syscall(SYS_gettid), inside < 0 ? Py_False : Py_True);
}

static PyMethodDef methods[] = {{"call", call, METH_O, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, NAME, NULL, -1, methods, NULL, NULL, NULL, NULL};

#define INIT2(name) PyInit_##name
#define INIT(name) INIT2(name)
PyMODINIT_FUNC INIT(MODULE)(void) { return PyModule_Create(&module); }
