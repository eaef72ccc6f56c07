/* os_linux.c - what the runtime wants of the operating system: futexes, notes, threads, CPUs.
 *
 * A note is a one-shot sleep of one thread: clear, set, sleep-until-set.  Setting is xchg and a futex
 * wake by address only; after the xchg the waker touches nothing, since the sleeper may reuse the note.
 *
 * Ms block every signal but the synchronous ones, SIGURG and one reserved real-time signal, the kick: the program's
 * signal handlers belong on its own threads.  If no signal is to have a handler of ours (os_leave_signals) they block
 * none but what the program does: then children inherit the program's mask, though nobody sees them being made. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "arch/arch.h"
#include "base/clock.h"
#include "base/os.h"

/* ns < 0: for ever.  Returns on wake, timeout, signal or a different value: callers loop.
 * errno is left alone, here, in what looks at other threads, and in netpoll: C code on another thread may be about to
 * read this thread's, for a goroutine that it ran last (py/interpose/homes.c). */
void futexsleep(_Atomic uint32_t *word, uint32_t value, int64_t ns) {
  struct timespec ts, *tp = NULL;
  if (ns >= 0) {
    ts.tv_sec = (time_t)(ns / 1000000000);
    ts.tv_nsec = (long)(ns % 1000000000);
    tp = &ts;
  }
  cpu_syscall(SYS_futex, (long)word, FUTEX_WAIT_PRIVATE, value, (long)tp, 0, 0);
}

void futexwakeup(_Atomic uint32_t *word, int n) {
  cpu_syscall(SYS_futex, (long)word, FUTEX_WAKE_PRIVATE, n, 0, 0, 0);
}

void noteclear(note *n) { store_rlx(&n->word, 0); }

void notewakeup(note *n) {
  if (xchg(&n->word, 1) == 0) futexwakeup(&n->word, 1);
}

void notesleep(note *n) {
  while (load_acq(&n->word) == 0) futexsleep(&n->word, 0, -1);
}

bool notetsleep(note *n, int64_t ns) {
  if (ns < 0) {
    notesleep(n);
    return true;
  }
  int64_t end = nanotime() + ns;
  while (load_acq(&n->word) == 0) {
    int64_t left = end - nanotime();
    if (left <= 0) return false;
    futexsleep(&n->word, 0, left);
  }
  return true;
}

/* For the process's first thread the C library reads all mappings: once. */
void os_thread_stack(char **lo, char **hi) {
  static char *first_lo, *first_hi;
  bool first = os_gettid() == getpid();
  *lo = first_lo, *hi = first_hi;
  if (first && first_hi) return;
  *lo = *hi = NULL;
  pthread_attr_t attr;
  void *from;
  size_t size, guard;
  if (pthread_getattr_np(pthread_self(), &attr) != 0) return;
  if (pthread_attr_getstack(&attr, &from, &size) == 0 && pthread_attr_getguardsize(&attr, &guard) == 0) {
    *lo = (char *)from + guard;
    *hi = (char *)from + size;
  }
  pthread_attr_destroy(&attr);
  if (first) first_lo = *lo, first_hi = *hi;
}

pid_t os_gettid(void) { return (pid_t)syscall(SYS_gettid); }

/* As /proc has it: 'R' runs or would if there were a CPU, 'S' sleeps, 'D' sleeps for a device or a page;
 * 0 if that is not to be had.  For these microseconds the file has the lowest free number: Linux opens nothing at another
 * one, and tells the state of a thread nowhere else. */
char os_thread_state(pid_t tid) {
  char path[48], text[128];
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)tid);
  long fd = cpu_syscall(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
  if (fd < 0) return 0;
  long n = cpu_syscall(SYS_read, fd, (long)text, sizeof text - 1, 0, 0, 0);
  cpu_syscall(SYS_close, fd, 0, 0, 0, 0, 0);
  text[n > 0 ? n : 0] = 0;
  const char *name_ends = strrchr(text, ')'); /* "4711 (name) S 1 ..." */
  return name_ends && name_ends[1] ? name_ends[2] : 0;
}

/* ns that the thread has run; 0 if there is no such thread. */
int64_t os_thread_cputime(pid_t tid) {
  enum { PER_THREAD = 4, SCHED_TIME = 2 }; /* as in the kernel's clock ids */
  struct timespec t = {0, 0};
  cpu_syscall(SYS_clock_gettime, (long)(~(unsigned)tid << 3 | PER_THREAD | SCHED_TIME), (long)&t, 0, 0, 0, 0);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void os_heap_trim(void) { malloc_trim(0); }

void os_usleep(uint32_t us) {
  struct timespec ts = {us / 1000000, (long)(us % 1000000) * 1000};
  nanosleep(&ts, NULL);
}

int os_ncpu(void) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  long n = sysconf(_SC_NPROCESSORS_ONLN);
  return n > 0 ? (int)n : 1;
}

/* The reserved signal: makes a system call of an M return EINTR. */
enum { KICK_OFFSET = 3 };
int os_kick_signal(void) { return SIGRTMAX - KICK_OFFSET; }

static bool left; /* no signal has a handler of ours */
void os_leave_signals(void) { left = true; }
bool os_signals_left(void) { return left; }

/* Without a handler it would end the process. */
void os_kick(pid_t tid) {
  if (!left) syscall(SYS_tgkill, getpid(), tid, os_kick_signal());
}

/* The signal mask of the thread that started the runtime: what most goroutines inherit. */
static sigset_t program_mask;
void os_note_mask(void) { pthread_sigmask(SIG_SETMASK, NULL, &program_mask); }
uint64_t os_program_bits(void) {
  uint64_t b;
  memcpy(&b, &program_mask, sizeof b);
  return b;
}

static void runtime_mask(sigset_t *set) {
  if (left) {
    *set = program_mask;
    return;
  }
  static const int open[] = {SIGURG, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};
  sigfillset(set);
  for (size_t i = 0; i < nelem(open); i++) sigdelset(set, open[i]);
  sigdelset(set, os_kick_signal());
}

/* A detached thread with the runtime's signal mask from its first instruction. Returns 0 or an errno. */
int os_newthread(pthread_t *out, size_t stack, void *(*fn)(void *), void *arg) {
  pthread_attr_t attr;
  sigset_t mask, old;
  int err = pthread_attr_init(&attr);
  if (err) return err;
  long least = sysconf(_SC_THREAD_STACK_MIN) + (64 << 10); /* thread-locals lie on it too */
  if (stack < (size_t)least) stack = (size_t)least;
#if defined(GM_TSAN) || defined(GM_ASAN)
  stack *= 4;
#endif
  pthread_attr_setstacksize(&attr, stack);
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  runtime_mask(&mask);
  pthread_sigmask(SIG_SETMASK, &mask, &old);
  err = pthread_create(out, &attr, fn, arg);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  pthread_attr_destroy(&attr);
  return err;
}

static size_t signal_stack_size(void) {
  size_t handlers = 32 << 10;
#if defined(GM_TSAN) || defined(GM_ASAN)
  handlers *= 4;
#endif
  return (size_t)getauxval(AT_MINSIGSTKSZ) + handlers;
}

/* On a new M: a signal stack, and timers without the kernel's 50 us of slack.  false: no memory.  Without that stack no
 * goroutine may run here: handlers would run on its own, and of an overflow of that one it would die without a word. */
bool os_minit(void) {
  stack_t ss = {.ss_size = signal_stack_size()};
  ss.ss_sp = mmap(NULL, ss.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (ss.ss_sp == MAP_FAILED) return false;
  if (sigaltstack(&ss, NULL) != 0) {
    munmap(ss.ss_sp, ss.ss_size);
    return false;
  }
  prctl(PR_SET_TIMERSLACK, 1000UL, 0, 0, 0);
  return true;
}

void os_mexit(void) {
  stack_t ss = {.ss_flags = SS_DISABLE}, old;
  if (sigaltstack(&ss, &old) == 0 && !(old.ss_flags & SS_DISABLE)) munmap(old.ss_sp, old.ss_size);
}

/* noinline: the address of errno must be found anew after each park (another thread, perhaps). */
noinline int errno_get(void) { return errno; }
noinline void errno_set(int e) { errno = e; }
