/* gstatus_test.c - the table of status transitions. */
#include "test.h"

#include <signal.h>
#include <sys/wait.h>

TEST(every_status_has_a_name) {
  CHECK(strcmp(gstatus_name(Gidle), "idle") == 0);
  CHECK(strcmp(gstatus_name(Grunnable), "runnable") == 0);
  CHECK(strcmp(gstatus_name(Grunning), "running") == 0);
  CHECK(strcmp(gstatus_name(Gsyscall), "syscall") == 0);
  CHECK(strcmp(gstatus_name(Gwaiting), "waiting") == 0);
  CHECK(strcmp(gstatus_name(Gdead), "dead") == 0);
  CHECK(strcmp(gstatus_name(77), "?") == 0);
}

#ifdef GM_DEBUG
static G bare;
CRASH(illegal_transition) { casgstatus(&bare, Gwaiting, Grunning); }
CRASH(wrong_old_status) { casgstatus(&bare, Grunning, Gwaiting); }

TEST(illegal_transitions_are_noticed) {
  char out[4096];
  int status = crash("illegal_transition", out, sizeof out);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  CHECK(strstr(out, "goroutine 0: illegal waiting -> running"));
  status = crash("wrong_old_status", out, sizeof out);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  CHECK(strstr(out, "goroutine 0: status is idle, not running"));
}
#endif
