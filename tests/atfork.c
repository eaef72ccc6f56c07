/* atfork.c - a library with handlers of pthread_atfork: as uvloop's, and others that use what threads may use. */
#include <Python.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *code[3]; /* before, in the parent, in the child */
static int goes_on;         /* the child of spawn(): PyOS_AfterFork_Child() */
static int spawning;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void run(int which) {
  int tells = which == 2 && goes_on && spawning;
  if (!code[which] && !tells) return;
  PyGILState_STATE s = PyGILState_Ensure();
  if (tells) PyOS_AfterFork_Child();
  if (code[which]) PyRun_SimpleString(code[which]);
  PyGILState_Release(s);
}

static void before(void) {
  run(0);
  pthread_mutex_lock(&mutex);
}
static void in_parent(void) {
  pthread_mutex_unlock(&mutex);
  run(1);
}
static void in_child(void) {
  pthread_mutex_unlock(&mutex);
  run(2);
}

int install(void) { return pthread_atfork(before, in_parent, in_child); }

void set(const char *a, const char *b, const char *c, int child_goes_on) {
  code[0] = a ? strdup(a) : NULL;
  code[1] = b ? strdup(b) : NULL;
  code[2] = c ? strdup(c) : NULL;
  goes_on = child_goes_on;
}

/* With the GIL held.  The child ends with `status`, after Python code if there is some. */
int spawn(const char *child, int status) {
  PyOS_BeforeFork();
  spawning = 1;
  pid_t pid = fork();
  if (pid != 0) PyOS_AfterFork_Parent();
  spawning = 0;
  if (pid == 0) {
    if (child) {
      PyGILState_STATE s = PyGILState_Ensure();
      if (PyRun_SimpleString(child) != 0) status = 99;
      PyGILState_Release(s);
    }
    _exit(status);
  }
  int got;
  pid_t ended;
  Py_BEGIN_ALLOW_THREADS
  ended = waitpid(pid, &got, 0);
  Py_END_ALLOW_THREADS
  return ended == pid && WIFEXITED(got) ? WEXITSTATUS(got) : -1;
}

/* Holds the mutex meanwhile. */
int hold(int us) {
  pthread_mutex_lock(&mutex);
  usleep((useconds_t)us);
  return pthread_mutex_unlock(&mutex);
}
