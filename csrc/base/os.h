/* os.h - what the runtime wants of the operating system: os_linux.c. */
#ifndef GMPRT_BASE_OS_H
#define GMPRT_BASE_OS_H

#include <pthread.h>
#include <sys/types.h>

#include "base/base.h"

/* One-shot sleep: word 0 clear, 1 set. */
typedef struct note {
  _Atomic uint32_t word;
} note;
void noteclear(note *n);
void notewakeup(note *n);
void notesleep(note *n);
bool notetsleep(note *n, int64_t ns);

void futexsleep(_Atomic uint32_t *word, uint32_t value, int64_t ns);
void futexwakeup(_Atomic uint32_t *word, int n);

int os_newthread(pthread_t *out, size_t stack, void *(*fn)(void *), void *arg);
bool os_minit(void);
void os_mexit(void);
pid_t os_gettid(void);
void os_thread_stack(char **lo, char **hi); /* of the calling thread, without its guard */
char os_thread_state(pid_t tid);
int64_t os_thread_cputime(pid_t tid);
void os_usleep(uint32_t us);
void os_heap_trim(void); /* what the C library's heap keeps and does not need goes back to the kernel */
int os_ncpu(void);
void os_leave_signals(void); /* before the start: no signal gets a handler of ours */
bool os_signals_left(void);
void os_note_mask(void); /* the calling thread's is the program's */
uint64_t os_program_bits(void);
int os_kick_signal(void);
void os_kick(pid_t tid); /* makes its system call return EINTR */

int errno_get(void); /* of the thread that runs now */
void errno_set(int e);

#endif
