/* slow.c - preloaded by tests: while `slow` is set, who gets a semaphore holds it for some time, the first thread
 * excepted; `holding` is how many do.  The interpreter's list of thread states is guarded by one. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <unistd.h>

atomic_int slow, holding;

int sem_wait(sem_t *s) {
  static int (*next)(sem_t *);
  if (!next) next = (int (*)(sem_t *))dlsym(RTLD_NEXT, "sem_wait");
  int r = next(s);
  if (slow && gettid() != getpid()) {
    holding++;
    usleep(30000);
    holding--;
  }
  return r;
}
