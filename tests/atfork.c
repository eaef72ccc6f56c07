/* atfork.c - a library with handlers of pthread_atfork: as uvloop's, and others that use what threads may use. */
#include <Python.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *code[3]; /* before, in the parent, in the child */
static int goes_on;         /* the child: PyOS_AfterFork_Child() */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void run(int which) {
  if (!code[which] && !(which == 2 && goes_on)) return;
  PyGILState_STATE s = PyGILState_Ensure();
  if (which == 2 && goes_on) PyOS_AfterFork_Child();
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

/* Forks without Python's knowledge.  The child ends with `status`, after Python code if there is some. */
int spawn(const char *child, int status) {
  pid_t pid = fork();
  if (pid == 0) {
    if (child) {
      PyGILState_STATE s = PyGILState_Ensure();
      if (PyRun_SimpleString(child) != 0) status = 99;
      PyGILState_Release(s);
    }
    _exit(status);
  }
  int got;
  return waitpid(pid, &got, 0) == pid && WIFEXITED(got) ? WEXITSTATUS(got) : -1;
}

/* Holds the mutex meanwhile. */
int hold(int us) {
  pthread_mutex_lock(&mutex);
  usleep((useconds_t)us);
  return pthread_mutex_unlock(&mutex);
}
