/* got_host.c - an interpreter that takes the addresses of C library functions.
 *
 * In an executable that is not position-independent such an address is that of its own PLT entry, for every object of the
 * process; dlsym() finds it, too.  Debian's python3 is one, with fsync and fdatasync. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int Py_BytesMain(int argc, char **argv);

static const struct {
  const char *name;
  void *at;
} taken[] = {
#define TAKE(name) {#name, (void *)name}
    TAKE(fsync),       TAKE(fdatasync),    TAKE(read),          TAKE(write),           TAKE(close),
    TAKE(poll),        TAKE(select),       TAKE(recv),          TAKE(send),            TAKE(accept),
    TAKE(connect),     TAKE(sem_wait),     TAKE(sem_post),      TAKE(sem_trywait),     TAKE(sem_timedwait),
    TAKE(clock_nanosleep), TAKE(waitpid),  TAKE(wait4),         TAKE(pthread_self),    TAKE(pthread_sigmask),
    TAKE(sigaction),   TAKE(kill),         TAKE(fork),          TAKE(vfork),           TAKE(pthread_create),
    TAKE(dup2),        TAKE(pipe2),        TAKE(socket),        TAKE(open64),          TAKE(fcntl64),
    TAKE(pthread_cond_timedwait),          TAKE(pthread_cond_signal),
};

int main(int argc, char **argv) {
  if (argc == 2 && strcmp(argv[1], "--taken") == 0) {
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) printf("%s %p\n", taken[i].name, taken[i].at);
    return 0;
  }
  return Py_BytesMain(argc, argv);
}
