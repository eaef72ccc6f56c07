/* lock.c - `_thread.lock`: which semaphore it is, and what it notes when that is taken.
 *
 * Up to 3.13 a lock is a semaphore and a flag by which release() knows that it has anything to do.  The struct is private
 * to a C file of the interpreter, so its layout is looked at when it is needed: the size of the type, where its weak
 * references are, and what changes in a lock that is taken and released.  From 3.14 on it is a word and a parking lot:
 * nothing is learned. */
#include "py/cpython/lock.h"

#include "base/base.h"

PyTypeObject *semaphore_lock;

#ifdef HAVE_SEMAPHORE_LOCK

typedef struct {
  PyObject_HEAD
  PyThread_type_lock semaphore;
  PyObject *weakrefs;
  char locked;
} lockobject;

sem_t *lock_semaphore(PyObject *lock) { return (sem_t *)((lockobject *)lock)->semaphore; }

bool lock_try(PyObject *lock) {
  if (sem_trywait(lock_semaphore(lock)) != 0) return false;
  lock_taken(lock);
  return true;
}

void lock_taken(PyObject *lock) { ((lockobject *)lock)->locked = 1; }

static bool shows(PyObject *lock, int free) {
  int value = -1;
  return sem_getvalue(lock_semaphore(lock), &value) == 0 && value == free && ((lockobject *)lock)->locked == !free;
}

/* Taken and released by the interpreter itself.  -1: exception. */
static int behaves(PyObject *lock) {
  if (!shows(lock, 1)) return 0;
  PyObject *r = PyObject_CallMethod(lock, "acquire", NULL);
  if (!r) return -1;
  Py_DECREF(r);
  bool taken = shows(lock, 0);
  r = PyObject_CallMethod(lock, "release", NULL);
  if (!r) return -1;
  Py_DECREF(r);
  return taken && shows(lock, 1);
}

bool lock_learn(PyTypeObject *type) {
  if (type->tp_basicsize != sizeof(lockobject) || type->tp_weaklistoffset != offsetof(lockobject, weakrefs)) return true;
  PyObject *module = PyImport_ImportModuleLevel("_thread", NULL, NULL, NULL, 0); /* by nobody's own __import__ */
  PyObject *lock = module ? PyObject_CallMethod(module, "allocate_lock", NULL) : NULL;
  int known = lock ? Py_IS_TYPE(lock, type) && behaves(lock) : -1;
  if (known > 0) semaphore_lock = type;
  Py_XDECREF(lock);
  Py_XDECREF(module);
  return known >= 0;
}

#else

sem_t *lock_semaphore(PyObject *lock) { (void)lock; return NULL; }
bool lock_try(PyObject *lock) { (void)lock; return false; }
void lock_taken(PyObject *lock) { (void)lock; }
bool lock_learn(PyTypeObject *type) { (void)type; return true; }

#endif
