/* sigquit.c - SIGQUIT: sysmon has all goroutines printed. */
#include <errno.h>
#include <signal.h>

#include "py/host/host.h"

static void sigquit(int sig) {
  (void)sig;
  int e = errno;
  store_rlx(&sched.dumpreq, true);
  sysmon_wake();
  errno = e;
}

bool sigquit_install(void) {
  struct sigaction old, sa = {.sa_handler = sigquit, .sa_flags = SA_RESTART | SA_ONSTACK};
  sigemptyset(&sa.sa_mask);
  if (sigaction(SIGQUIT, NULL, &old) != 0 || old.sa_flags & SA_SIGINFO || old.sa_handler != SIG_DFL) return false;
  return sigaction(SIGQUIT, &sa, NULL) == 0;
}

PyObject *py_install_sigquit(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  (void)module;
  return PyBool_FromLong(sigquit_install());
}
