/* test.c - runs tests, each in a process of its own, and watches them. */
#define _GNU_SOURCE
#include "test.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>

static test *first, **last = &first;

void test_register(test *t) {
  *last = t;
  last = &t->next;
}

/* ---- in the test's process -------------------------------------------------------------------------- */

static _Atomic uint32_t failures;

void check_failed(const char *file, int line, const char *fmt, ...) {
  if (xadd(&failures, 1) >= 20) return; /* the first ones tell it all */
  char text[512];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  fprintf(stderr, "%s:%d: failed: %s\n", file, line, text);
}

static int slowness(void) {
#if defined(GM_TSAN)
  return 20;
#elif defined(GM_ASAN)
  return 5;
#elif defined(GM_DEBUG)
  return 2;
#else
  return 1;
#endif
}

int rounds(int n) { return n / slowness() > 0 ? n / slowness() : 1; }
int64_t patient(int64_t ns) { return ns * (slowness() > 2 ? 4 : 1); }

rng rng_new(void) {
  static _Atomic uint64_t seed = 88172645463325252u;
  return xadd(&seed, 0x9e3779b97f4a7c15u) | 1;
}

void spin_ns(int64_t ns) {
  for (int64_t end = nanotime() + ns; nanotime() < end;) cpu_relax();
}

static const char *const pstates[] = {"idle", "running", "host", "stopped", "dead"};

/* Reads without locks: for a process that is about to be killed. */
__attribute__((no_sanitize("thread"))) void runtime_dump(void) {
  fprintf(stderr,
          "runtime: gomaxprocs %d, Ms %u (idle %u, wired %u), idle Ps %u, spinning %u, global queue %u,\n"
          "  blocked %u, stopping %d, poller %s, poll waiters %u, L: queued %u, inbox %p, holder M %u,\n"
          "  next timer %lld us from now, world %s\n",
          sched.gomaxprocs, sched.mcount, sched.nmidle, sched.lockedwait, load_rlx(&sched.npidle),
          load_rlx(&sched.nmspinning), load_rlx(&sched.runqsize), load_rlx(&sched.nblocked),
          load_rlx(&sched.stopping), load_rlx(&sched.lastpoll) ? "free" : "slept in", netpoll_waiters(),
          load_rlx(&sched.l.nqueued), (void *)load_rlx(&sched.l.inbox),
          load_rlx(&sched.l.holder) ? load_rlx(&sched.l.holder)->id : 0,
          (long long)(timers_next() == INT64_MAX ? -1 : (timers_next() - nanotime()) / 1000),
          load_rlx(&sched.gcwaiting) ? "stopped" : "runs");
  for (int32_t i = 0; i < sched.gomaxprocs; i++) {
    P *pp = sched.allp[i];
    uint64_t w = load_rlx(&pp->status);
    fprintf(stderr, "  P %d: %s of M %u, %u in the ring, runnext %s, tick %u\n", i,
            PSTATE(w) < (int)nelem(pstates) ? pstates[PSTATE(w)] : "?", PMID(w),
            load_rlx(&pp->runqtail) - load_rlx(&pp->runqhead), load_rlx(&pp->runnext) ? "set" : "empty",
            load_rlx(&pp->schedtick));
  }
  for (uint32_t i = 1; i <= sched.nextmid; i++) {
    M *m = sched.allm[i];
    G *gp = load_rlx(&m->curg);
    fprintf(stderr, "  M %u: goroutine %llu, P %d, switches %u%s%s%s\n", m->id,
            gp ? (unsigned long long)gp->goid : 0, m->p ? (int)m->p->id : -1, load_rlx(&m->switches),
            m->spinning ? ", spinning" : "", m->hostmode ? ", host mode" : "", m->lockedg ? ", wired" : "");
  }
  uint32_t cursor = 0, shown = 0;
  for (G *gp; (gp = allg_next(&cursor)) != NULL;) {
    uint32_t s = load_rlx(&gp->status);
    if (s == Gdead || s == Gidle || ++shown > 40) continue;
    fprintf(stderr, "  G %llu: %s (%s), wait %llx, M %u\n", (unsigned long long)gp->goid, gstatus_name(s),
            waitreason_name(load_rlx(&gp->reason)), (unsigned long long)load_rlx(&gp->wait),
            gp->m ? gp->m->id : 0);
  }
}

static const char *current_name;
static int current_seconds;

static void watchdog(int sig) {
  (void)sig;
  fprintf(stderr, "watchdog: %s runs for more than %d seconds\n", current_name, current_seconds);
  if (load_rlx(&sched.started)) runtime_dump();
  signal(SIGABRT, SIG_DFL);
  abort();
}

void watched(int seconds) {
  current_seconds = seconds;
  alarm((unsigned)seconds);
}

static int run_here(test *t) {
  current_name = t->name;
  signal(SIGPIPE, SIG_IGN);
  signal(SIGALRM, watchdog);
  watched(t->seconds ? t->seconds : 30);
  t->fn();
  fflush(stdout);
  _exit(load_rlx(&failures) != 0);
}

/* ---- helpers ---------------------------------------------------------------------------------------- */

void runtime_start(void) { NEED(gm_start() == 0); }

uint32_t count_ms(void) {
  lock(&sched.lock);
  uint32_t n = sched.mcount;
  unlock(&sched.lock);
  return n;
}

_Atomic long tally;
void tallies(void *unused) {
  (void)unused;
  xadd(&tally, 1);
}
void tallied(long n) {
  while (load_rlx(&tally) < n) os_usleep(50);
  CHECK_EQ(load_rlx(&tally), n);
}

_Atomic intptr_t crew_inside;
void blocks_with_crew(void *n) {
  gm_enter_blocking();
  xadd(&crew_inside, 1);
  while (load_rlx(&crew_inside) < (intptr_t)n) os_usleep(100);
  gm_exit_blocking();
}

typedef struct member {
  group *g;
  void (*fn)(void *);
  void *arg;
} member;

static member *member_new(group *g, void (*fn)(void *), void *arg) {
  member *m = malloc(sizeof *m);
  NEED(m != NULL);
  *m = (member){g, fn, arg};
  return m;
}

static void member_goroutine(void *arg) {
  member m = *(member *)arg;
  free(arg);
  m.fn(m.arg);
  gm_sema_release(&m.g->ended, 1);
}

static void *member_thread(void *arg) {
  member m = *(member *)arg;
  free(arg);
  m.fn(m.arg);
  return NULL;
}

void group_go(group *g, void (*fn)(void *), void *arg) {
  g->n++;
  NEED(gm_go(member_goroutine, member_new(g, fn, arg)) == GM_OK);
}

void group_thread(group *g, void (*fn)(void *), void *arg) {
  NEED(g->nthreads < (int)nelem(g->thread));
  NEED(pthread_create(&g->thread[g->nthreads++], NULL, member_thread, member_new(g, fn, arg)) == 0);
}

void group_wait(group *g) {
  for (; g->n > 0; g->n--) NEED(gm_sema_acquire(&g->ended, -1) == GM_OK);
  for (; g->nthreads > 0; g->nthreads--) pthread_join(g->thread[g->nthreads - 1], NULL);
}

void in_goroutine(void (*fn)(void *), void *arg) {
  group g = {0};
  group_go(&g, fn, arg);
  group_wait(&g);
}

/* ---- steps ------------------------------------------------------------------------------------------ */

#if defined(__x86_64__) && !defined(GM_TSAN)
enum { TRAP_FLAG = 0x100 };
static struct {
  bool (*each)(int n);
  int n;
  bool more;
  sem_t go, done;
} steps;

static void *other_thread(void *arg) {
  (void)arg;
  for (;;) {
    while (sem_wait(&steps.go) != 0) {
    }
    steps.more = steps.each(steps.n);
    sem_post(&steps.done);
  }
  return NULL;
}

static void trapped(int sig, siginfo_t *info, void *context) {
  (void)sig;
  (void)info;
  int e = errno;
  steps.n++;
  sem_post(&steps.go);
  while (sem_wait(&steps.done) != 0) {
  }
  errno = e;
  if (!steps.more) ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
}

bool stepwise(void (*fn)(void *), void *arg, bool (*each)(int n)) {
  struct sigaction sa = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};
  static pthread_t other;
  if (!other) {
    NEED(sigaction(SIGTRAP, &sa, NULL) == 0);
    NEED(sem_init(&steps.go, 0, 0) == 0 && sem_init(&steps.done, 0, 0) == 0);
    NEED(pthread_create(&other, NULL, other_thread, NULL) == 0);
  }
  steps.each = each;
  steps.n = 0;
  __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() | TRAP_FLAG);
  fn(arg);
  __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() & ~(uint64_t)TRAP_FLAG);
  return true;
}
#else
bool stepwise(void (*fn)(void *), void *arg, bool (*each)(int n)) {
  (void)fn, (void)arg, (void)each;
  return false;
}
#endif

/* ---- processes -------------------------------------------------------------------------------------- */

static const char *program; /* as it was called */

/* This program again, to run one test; err >= 0 becomes its standard error.  $EMULATOR runs programs of another CPU. */
static pid_t spawn(const char *name, int err) {
  pid_t pid = fork();
  if (pid != 0) return pid;
  if (err >= 0) dup2(err, 2);
  const char *emulator = getenv("EMULATOR");
  if (emulator && *emulator)
    execlp(emulator, emulator, program, "--run", name, (char *)NULL);
  else
    execl("/proc/self/exe", "test", "--run", name, (char *)NULL);
  _exit(127);
}

int crash(const char *name, char *out, size_t size) {
  int pipefd[2], status = -1;
  NEED(pipe(pipefd) == 0);
  pid_t pid = spawn(name, pipefd[1]);
  NEED(pid > 0);
  close(pipefd[1]);
  size_t n = 0;
  for (ssize_t r; (r = read(pipefd[0], out + n, size - 1 - n)) != 0;) {
    if (r > 0) n += (size_t)r;
    if (r < 0 && errno != EINTR) break;
  }
  out[n] = 0;
  close(pipefd[0]);
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

static int64_t clock_ms(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* The watchdog is the child's own; one that is past that (a spinning signal handler) is killed here. */
static int wait_for(pid_t pid, int seconds) {
  int status;
  int64_t end = clock_ms() + 1000 * (seconds + 10);
  for (int pause = 100;; pause = pause < 10000 ? pause * 2 : 10000) {
    if (waitpid(pid, &status, WNOHANG) == pid) return status;
    if (clock_ms() > end) {
      fprintf(stderr, "killed: its watchdog did not bite\n");
      kill(pid, SIGKILL);
      waitpid(pid, &status, 0);
      return status;
    }
    usleep((useconds_t)pause);
  }
}

static bool run_variant(test *t, char procs, bool chaos) {
  char value[2] = {procs, 0};
  setenv("GOMAXPROCS", value, 1);
  if (chaos)
    setenv("GMPRT_CHAOS", "1", 1);
  else
    unsetenv("GMPRT_CHAOS");
  int64_t start = clock_ms();
  fflush(NULL);
  int status = wait_for(spawn(t->name, -1), t->seconds ? t->seconds : 30);
  bool ok = status == 0;
  printf("%-6s %s (P=%c%s) %lld ms", ok ? "ok" : "FAILED", t->name, procs, chaos ? ", chaos" : "",
         (long long)(clock_ms() - start));
  if (WIFSIGNALED(status)) printf(": %s", strsignal(WTERMSIG(status)));
  if (WIFEXITED(status) && WEXITSTATUS(status)) printf(": exit %d", WEXITSTATUS(status));
  printf("\n");
  return ok;
}

static bool wanted(test *t, int argc, char **argv) {
  if (t->crash) return false;
  for (int i = 1; i < argc; i++)
    if (strstr(t->name, argv[i])) return true;
  return argc < 2;
}

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  program = argv[0];
  if (argc == 3 && strcmp(argv[1], "--run") == 0) {
    for (test *t = first; t; t = t->next)
      if (strcmp(t->name, argv[2]) == 0) return run_here(t);
    return 127;
  }
  int passed = 0, failed = 0;
  for (test *t = first; t; t = t->next) {
    if (!wanted(t, argc, argv)) continue;
    for (const char *p = t->procs ? t->procs : "2"; *p; p++) {
      for (int chaos = 0; chaos <= t->chaos; chaos++) {
        if (run_variant(t, *p, chaos))
          passed++;
        else
          failed++;
      }
    }
  }
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
