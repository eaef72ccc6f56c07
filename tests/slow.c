/* slow.c - preloaded by tests.
 *
 * While `slow` is set, who gets a semaphore holds it for some time, the first thread excepted; `holding` is how many do.
 * The interpreter's list of thread states is guarded by one.
 *
 * `late` 1: the next thread that is to see in errno that its time is over is kept from it; it says so by 2, and goes on
 * when it is 0 again. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <unistd.h>

atomic_int slow, holding, late;

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

int *__errno_location(void) {
  static int *(*next)(void);
  if (!next) next = (int *(*)(void))dlsym(RTLD_NEXT, "__errno_location");
  int *at = next(), seen = *at, one = 1;
  if (late && seen == ETIMEDOUT && atomic_compare_exchange_strong(&late, &one, 2)) {
    while (late) usleep(1);
    *at = seen;
  }
  return at;
}
