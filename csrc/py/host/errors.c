/* errors.c - exceptions, which are classes written in Python, and functions that are. */
#include "base/os.h"
#include "py/host/errors.h"

struct errors errs;

/* gmprt.<module>.<name>, imported when first needed. */
PyObject *helper(const char *module, const char *name) {
  char full[64];
  PyOS_snprintf(full, sizeof full, "gmprt.%s", module);
  PyObject *mod = PyImport_ImportModule(full);
  PyObject *fn = mod ? PyObject_GetAttrString(mod, name) : NULL;
  Py_XDECREF(mod);
  return fn;
}

int load_errors(void) {
  PyObject *mod = PyImport_ImportModule("gmprt._api.errors");
  if (!mod) return -1;
  const struct {
    const char *name;
    PyObject **at;
  } rows[] = {{"Error", &errs.Error},
              {"RuntimeNotRunning", &errs.RuntimeNotRunning},
              {"ChannelClosed", &errs.ChannelClosed},
              {"EndOfChannel", &errs.EndOfChannel},
              {"WouldBlock", &errs.WouldBlock},
              {"Cancelled", &errs.Cancelled},
              {"GoroutineCancelled", &errs.GoroutineCancelled},
              {"Deadlock", &errs.Deadlock},
              {"TooManyThreads", &errs.TooManyThreads},
              {"Timeout", &errs.Timeout},
              {"ContextCancelled", &errs.ContextCancelled},
              {"DeadlineExceeded", &errs.DeadlineExceeded},
              {"GoExit", &errs.GoExit}};
  for (size_t i = 0; i < nelem(rows); i++)
    if (!(*rows[i].at = PyObject_GetAttrString(mod, rows[i].name))) return -1;
  Py_DECREF(mod);
  return 0;
}
