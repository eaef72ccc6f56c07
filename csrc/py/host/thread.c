/* thread.c - what `threading` does for its threads, done for goroutines.
 *
 * A goroutine that asked for its thread object (gmprt/_life/threads.py) has it taken out of threading's table at its
 * end.  threading.settrace() and setprofile() count for goroutines as for threads: what they have set is
 * installed when one starts.  Looking it up would be a tenth of a goroutine's price, so the module's dict
 * is looked at only when it has changed (cpython/dictwatch.c).
 *
 * decimal keeps its context, an object that is changed in place, in a context variable.  A goroutine has a copy of
 * its parent's variables, and would have the very same object: getcontext().prec = 5 would count for both.  A
 * thread has one of its own, so a goroutine gets a copy. */
#include "py/cpython/dictwatch.h"
#include "py/host/above.h"

static PyObject *module_dict, *goroutine_thread, *forget, *start_hooks; /* NULL: not told yet */
static bool hooked; /* threading has a trace or a profile hook */

static PyObject *trace_hook, *profile_hook; /* names in it; made once, for a look must not need memory */

static bool has_hook(PyObject *name) {
  PyObject *f = PyDict_GetItemWithError(module_dict, name);
  return f && f != Py_None;
}

static void look(void) { hooked = has_hook(trace_hook) || has_hook(profile_hook); }

/* At the start of a goroutine, on it.  An exception is reported, no more: as threads do. */
void thread_start(void) {
  if (unlikely(!module_dict)) return;
  if (unlikely(dict_has_changed(module_dict))) look();
  if (likely(!hooked)) return;
  PyObject *r = PyObject_CallNoArgs(start_hooks);
  if (!r) PyErr_WriteUnraisable(start_hooks);
  Py_XDECREF(r);
}

/* At the end of one that has a thread object. */
void thread_forget(unsigned long ident) {
  PyObject *r = PyObject_CallFunction(forget, "k", ident);
  if (!r) PyErr_WriteUnraisable(forget);
  Py_XDECREF(r);
}

static PyObject *decimal_var; /* NULL: decimal is not known to be in use */

/* The one variable that decimal.getcontext() sets in an empty context. */
static PyObject *decimal_find(void) {
  PyObject *mod = PyDict_GetItemString(PyImport_GetModuleDict(), "_decimal"), *ctx = mod ? PyContext_New() : NULL;
  if (!ctx) return NULL;
  PyObject *used = NULL;
  if (PyContext_Enter(ctx) == 0) {
    used = PyObject_CallMethod(mod, "getcontext", NULL);
    PyContext_Exit(ctx);
  }
  PyObject *it = used ? PyObject_GetIter(ctx) : NULL;
  PyObject *var = it ? PyIter_Next(it) : NULL;
  Py_XDECREF(it);
  Py_XDECREF(used);
  Py_DECREF(ctx);
  return var;
}

/* At the start of a goroutine that has inherited context variables, with these in force. */
void thread_context(void) {
  if (!decimal_var && !(decimal_var = decimal_find())) {
    PyErr_Clear(); /* not imported, or being imported just now */
    return;
  }
  PyObject *inherited = NULL;
  if (PyContextVar_Get(decimal_var, NULL, &inherited) == 0 && !inherited) return;
  PyObject *own = inherited ? PyObject_CallMethod(inherited, "copy", NULL) : NULL;
  PyObject *token = own ? PyContextVar_Set(decimal_var, own) : NULL;
  if (!token) PyErr_WriteUnraisable(decimal_var);
  Py_XDECREF(token);
  Py_XDECREF(own);
  Py_XDECREF(inherited);
}

bool threads_known(void) { return module_dict != NULL; }

/* When gmprt becomes active.  Without an identity of its own a goroutine has the object of its thread. */
bool threads_install(void) {
  if (dict_watch(module_dict) < 0) return false;
  return !interposed.gil || PyDict_SetItemString(module_dict, "_DummyThread", goroutine_thread) == 0;
}

/* (threading's dict, the class of goroutines' objects, forget(ident), start_hooks()) */
static PyObject *py_set_thread_hooks(PyObject *module, PyObject *args) {
  (void)module;
  PyObject *d, *c, *f, *s;
  if (!PyArg_ParseTuple(args, "O!OOO", &PyDict_Type, &d, &c, &f, &s)) return NULL;
  if (!trace_hook && !(trace_hook = PyUnicode_InternFromString("_trace_hook"))) return NULL;
  if (!profile_hook && !(profile_hook = PyUnicode_InternFromString("_profile_hook"))) return NULL;
  Py_XSETREF(module_dict, Py_NewRef(d));
  Py_XSETREF(goroutine_thread, Py_NewRef(c));
  Py_XSETREF(forget, Py_NewRef(f));
  Py_XSETREF(start_hooks, Py_NewRef(s));
  Py_RETURN_NONE;
}

static PyObject *py_has_thread_object(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  (void)module;
  Goroutine *self = current_handle();
  if (self && !self->lent) self->threaded = true;
  Py_RETURN_NONE;
}

PyMethodDef thread_functions[] = {
    {"set_thread_hooks", py_set_thread_hooks, METH_VARARGS, NULL},
    {"has_thread_object", py_has_thread_object, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL}};
