/* functions.c - functions of the package that concern the running goroutine, or all of them. */
#include "sync/sema.h"
#include "py/host/above.h"
#include "py/host/errors.h"
#include "py/host/life.h"
#include "py/host/scope.h"
#include "py/types/args.h"

PyObject *py_go(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  (void)module;
  if (unlikely(nargs < 1)) {
    PyErr_SetString(PyExc_TypeError, "go() needs fn, a callable");
    return NULL;
  }
  if (unlikely(!callable_arg("go", "fn", args[0]))) return NULL;
  return (PyObject *)goroutine_go(args, nargs, kwnames);
}

static PyObject *py_current(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  (void)module;
  Goroutine *self = current_handle();
  return Py_NewRef(self ? (PyObject *)self : Py_None);
}

/* Yields.  A cancel is not delivered here: gosched() is no wait.
 * METH_FASTCALL, for the interpreter specialises no call of a function that is declared without arguments: 100 instructions. */
static PyObject *py_gosched(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
  (void)module;
  (void)args;
  if (unlikely(nargs > 0)) {
    PyErr_Format(PyExc_TypeError, "gosched() takes no arguments (%zd given)", nargs);
    return NULL;
  }
  if (likely(curg())) {
    gosched();
  } else {
    Py_BEGIN_ALLOW_THREADS
    os_usleep(0);
    Py_END_ALLOW_THREADS
  }
  Py_RETURN_NONE;
}

static PyObject *py_goexit(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  (void)module;
  if (!curg())
    PyErr_SetString(PyExc_RuntimeError, "goexit() outside a goroutine");
  else
    PyErr_SetNone(errs.GoExit);
  return NULL;
}

/* (name of a function, its argument `seconds`): as a float; NaN is refused. */
static PyObject *py_seconds(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
  (void)module;
  const char *fn = nargs == 2 ? PyUnicode_AsUTF8(args[0]) : NULL;
  double s;
  if (!fn || !seconds_arg(fn, "seconds", args[1], "", &s)) return NULL;
  if (s == s) return PyFloat_FromDouble(s);
  PyErr_Format(PyExc_ValueError, "%s(): seconds must not be NaN", fn);
  return NULL;
}

static PyObject *py_sleep(PyObject *module, PyObject *arg) {
  (void)module;
  double s;
  if (!seconds_arg("sleep", "seconds", arg, "", &s)) return NULL;
  if (s != s || s < 0) {
    PyErr_Format(PyExc_ValueError, "sleep(): seconds must not be %s", s < 0 ? "negative" : "NaN");
    return NULL;
  }
  if (s == 0) return py_gosched(module, NULL, 0);
  int64_t deadline = deadline_after(s);
  G *gp = getg(true);
  if (!gp) return PyErr_NoMemory();
  for (;;) {
    wake_t r = park_any(gp, NULL, NULL, waitReasonSleep, deadline, true);
    if (r == WAKE_TIMEOUT) Py_RETURN_NONE;
    if (wake_error(r) != 0) return NULL;
  }
}

static int by_id(const void *a, const void *b) {
  uint64_t x = (*(Goroutine *const *)a)->id, y = (*(Goroutine *const *)b)->id;
  return (x > y) - (x < y);
}

static bool is_alive(const Goroutine *self) { return !self->done; }

/* Its function has returned, its callbacks and what its end destroys have not. */
static bool is_leaving(const Goroutine *self) { return self->done && !self->left; }

static PyObject *handles(bool (*wanted)(const Goroutine *)) {
  PyObject *list = PyList_New(0);
  uint32_t cursor = 0;
  for (G *gp; list && (gp = allg_next(&cursor)) != NULL;) {
    Goroutine *self = gp->kind == GK_HOST ? gp->handle : NULL;
    if (self && wanted(self) && PyList_Append(list, (PyObject *)self) < 0) Py_CLEAR(list);
  }
  if (list && PyList_GET_SIZE(list) > 1) {
    PyObject **items = ((PyListObject *)list)->ob_item;
    qsort(items, (size_t)PyList_GET_SIZE(list), sizeof *items, by_id);
  }
  return list;
}

static PyObject *py_goroutines(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  (void)module;
  return handles(is_alive);
}

static PyObject *py_leaving(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  (void)module;
  return handles(is_leaving);
}

/* (goroutine): its callback's current or next wait raises Cancelled. */
static PyObject *py_cancel_leaving(PyObject *module, PyObject *op) {
  (void)module;
  Goroutine *self = (Goroutine *)op;
  if (!above.cancel_learn()) return NULL;
  if (!self->left) cancel_direct(self);
  Py_RETURN_NONE;
}

/* (goroutine, seconds): has it left? */
static PyObject *py_join_leaving(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
  (void)module;
  Goroutine *self = (Goroutine *)args[0];
  patience p;
  if (patience_parse_strict("join_leaving", nargs > 1 ? args[1] : NULL, &p) < 0) return NULL;
  while (!self->left) {
    wake_t r = p.block ? waitq_wait(&self->joiners, waitReasonJoin, p.deadline) : WAKE_TIMEOUT;
    if (r == WAKE_TIMEOUT) break;
    if (r != WAKE_OK && wake_error(r) != 0) return NULL;
  }
  return PyBool_FromLong(self->left);
}

/* (goroutine, fn): who has asked for that call when it ends does not wait for it any more. */
static PyObject *py_forget_callback(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
  (void)module, (void)nargs;
  extras *more = ((Goroutine *)args[0])->more;
  PyObject *list = more ? more->callbacks : NULL;
  for (Py_ssize_t i = list ? PyList_GET_SIZE(list) : 0; i-- > 0;) /* the last, it may be, of a crowd */
    if (PyList_GET_ITEM(list, i) == args[1]) return PyList_SetSlice(list, i, i + 1, NULL) < 0 ? NULL : Py_NewRef(Py_None);
  Py_RETURN_NONE;
}

static PyObject *py_num_goroutine(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  (void)module;
  Py_ssize_t n = 0;
  uint32_t cursor = 0;
  for (G *gp; (gp = allg_next(&cursor)) != NULL;) {
    uint32_t s = load_acq(&gp->status);
    n += gp->kind != GK_FOREIGN && s != Gdead && s != Gidle;
  }
  return PyLong_FromSsize_t(n);
}

static PyObject *py_gomaxprocs(PyObject *module, PyObject *args, PyObject *kwargs) {
  (void)module;
  static char *names[] = {"n", NULL};
  PyObject *number = Py_None;
  int64_t n = 0;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:gomaxprocs", names, &number)) return NULL;
  if (number != Py_None && !integer_arg("gomaxprocs", "n", number, 1, MAX_PROCS, &n)) return NULL;
  if (!runtime_ensure()) return NULL;
  int32_t old;
  Py_BEGIN_ALLOW_THREADS /* nobody waits for the world with the GIL in hand */
  old = gomaxprocs_set((int32_t)n);
  Py_END_ALLOW_THREADS
  return old < 0 ? PyErr_NoMemory() : PyLong_FromLong(old);
}

PyMethodDef goroutine_functions[] = {
    {"go", FN(py_go), KW,
     "go(fn, /, *args, **kwargs)\n--\n\nStart a goroutine that runs fn(*args, **kwargs); returns its handle.\n"
     "It is runnable, not running, and has a copy of the caller's context. From any thread."},
    {"current", py_current, METH_NOARGS,
     "current()\n--\n\nThe running goroutine, or None in an ordinary thread."},
    {"gosched", FN(py_gosched), METH_FASTCALL, "gosched()\n--\n\nLet other goroutines run. Go's Gosched."},
    {"goexit", py_goexit, METH_NOARGS,
     "goexit()\n--\n\nEnd the running goroutine, running its finally blocks. RuntimeError outside one.\n"
     "Go's Goexit."},
    {"sleep", py_sleep, METH_O,
     "sleep(seconds, /)\n--\n\nPark for that long; 0 yields. An ordinary thread blocks, without the GIL.\n"
     "ValueError for negative seconds and NaN."},
    {"seconds", FN(py_seconds), METH_FASTCALL, NULL},
    {"goroutines", py_goroutines, METH_NOARGS, "goroutines()\n--\n\nAll that live, by id."},
    {"leaving", py_leaving, METH_NOARGS, NULL},
    {"cancel_leaving", py_cancel_leaving, METH_O, NULL},
    {"join_leaving", FN(py_join_leaving), METH_FASTCALL, NULL},
    {"forget_callback", FN(py_forget_callback), METH_FASTCALL, NULL},
    {"num_goroutine", py_num_goroutine, METH_NOARGS,
     "num_goroutine()\n--\n\nHow many live, native ones included."},
    {"gomaxprocs", FN(py_gomaxprocs), METH_VARARGS | METH_KEYWORDS,
     "gomaxprocs(n=None)\n--\n\nReturns the number of Ps, and changes it to n. Waits until the world has stopped.\n"
     "ValueError: not 1 to 256. MemoryError: the number is what it was."},
    {"failures", py_failures, METH_O, NULL},
    {"asking", FN(py_asking), METH_FASTCALL, NULL},
    {"set_reporter", py_set_reporter, METH_O, NULL},
    {NULL, NULL, 0, NULL}};
