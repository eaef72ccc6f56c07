/* preempt.c - a goroutine that has run for a slice is asked to yield.
 *
 * sysmon asks (preemptone).  A request is the pair {M, switch count}: it is void as soon as the M has switched.
 *   Hosted goroutines yield at the host's next safe point, a bytecode boundary.  How they are told is the
 *   host's business: from outside (host->preempt), or in the handler of SIGURG on the M itself, which may
 *   touch what only that thread touches (host->preempt_signal).
 *   Native goroutines run code that knows nothing of us.  If it has been interrupted in a range that was
 *   registered as preemptible (gm_preemptible), the handler makes it call preempted() when it goes on
 *   (arch/CPU/inject.c).  Such code takes no lock that has an owner, and keeps no address of a thread-local.
 *   Elsewhere, in the C library say, it is asked again at the next tick.
 *
 * SIGURG, as in Go: its default action is to be ignored, debuggers let it pass, the C library does not use it.  It
 * goes only to an M that runs: a blocking call would fail with EINTR, in spite of SA_RESTART.  It is sent
 * under sched.lock, which an M takes before its thread ends.  The program may have a use for SIGURG, too:
 * what we did not send goes to its handler.
 *
 * A request that is not answered is repeated; one that nobody can answer (C code that holds the host lock, a
 * traced Python 3.11) leads to sharing the host lock between two Ms (sysmon.c).
 *
 * Rejected: switching in the handler (one M for each preempted goroutine, and the scheduler in signal context), a
 * timer per M (28 us for each expiry). */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arch/arch.h"
#include "sched/sched.h"
#include "sched/park.h"

static bool enabled;
static bool signals; /* there is a handler: os_leave_signals */

bool preempt_enabled(void) { return enabled; }

/* Is the goroutine that runs on m the one that was asked?  On m's own thread. */
bool preempt_wanted(M *m) {
  return load_rlx(&m->preempt) && load_rlx(&m->preempt_at) == load_rlx(&m->switches);
}

static void signalM(M *m) {
  lock(&sched.lock);
  if (m->tid && !m->lender) syscall(SYS_tgkill, getpid(), m->tid, SIGURG);
  unlock(&sched.lock);
}
bool preempt_signalM(M *m) {
  if (signals) signalM(m);
  return signals;
}

/* sysmon, or who stops the world: asks the goroutine that m runs to yield. false: it cannot be asked. */
bool preemptone(M *m) {
  if (!enabled) return false;
  G *gp = load_acq(&m->curg);
  uint32_t at = load_rlx(&m->switches);
  if (!gp) return true; /* it is leaving anyway */
  store_rlx(&m->preempt_at, at);
  store_rel(&m->preempt, true);
  xadd(&counts.preempt_requests, 1);
  if (gp->kind == GK_HOST) return host->preempt && host->preempt(m);
  return preempt_signalM(m);
}

/* ---- native goroutines ----------------------------------------------------------------------------------- */

enum { RANGES = 256 };
static struct {
  uintptr_t lo, hi;
} ranges[RANGES];
static _Atomic uint32_t nranges; /* released when the entry is whole: the handler reads without a lock */
static mutex rangelock = {.rank = rank_stack};
static bool injects; /* this CPU can */
#ifdef GM_TSAN
enum { SIGNALS_LATE = true }; /* the sanitizer delivers them later, elsewhere */
#else
enum { SIGNALS_LATE = false };
#endif

/* Goroutines may be preempted anywhere in [start, end).  false: too many ranges. */
bool preempt_register(const void *start, const void *end) {
  lock(&rangelock);
  uint32_t n = load_rlx(&nranges);
  bool ok = n < RANGES;
  if (ok) {
    ranges[n].lo = (uintptr_t)start;
    ranges[n].hi = (uintptr_t)end;
    store_rel(&nranges, n + 1);
  }
  unlock(&rangelock);
  return ok;
}

/* A thread that registers is not stopped by a fork.  The entry that it was writing does not count. */
void preempt_afterfork(void) { lock_anew(&rangelock); }

static bool preemptible(uintptr_t pc) {
  uint32_t n = load_acq(&nranges);
  for (uint32_t i = 0; i < n; i++)
    if (pc >= ranges[i].lo && pc < ranges[i].hi) return true;
  return false;
}

/* In the handler, which may have interrupted anything. */
static void preempt_native(M *m, G *gp, void *context) {
  char here;
  if (!injects || !m->p || m->hostmode || load_rlx(&gp->status) != Grunning) return;
  if (&here >= gp->stk.lo && &here < gp->stk.hi) return; /* no signal stack: nothing is known of the room */
  if (preemptible(arch_context_pc(context))) arch_inject(context, gp->stk.lo);
}

static void preempt_commit(M *m, G *gp) {
  (void)m;
  casgstatus(gp, Grunning, Grunnable);
  lock(&sched.lock);
  globrunqput(gp);
  unlock(&sched.lock);
}

/* Called by the interrupted code, on the goroutine. */
static void preempted(void) {
  M *m = getm();
  xadd(&counts.preemptions, 1);
  if (lwaiting() && !load_rlx(&sched.l.holder)) m->p->hostfirst = true; /* whose turn it is now */
  leave_to_g0(load_rlx(&m->curg), preempt_commit);
}

/* ---- the signal ------------------------------------------------------------------------------------------- */

static struct sigaction old_urg;

static void sigurg(int sig, siginfo_t *info, void *context) {
  int e = errno;
  M *m = getm();
  bool ours = info->si_code == SI_TKILL && info->si_pid == getpid();
  if (m && ours) {
    G *gp = load_rlx(&m->curg);
    if (gp && preempt_wanted(m)) {
      if (gp->kind == GK_NATIVE)
        preempt_native(m, gp, context);
      else if (host->preempt_signal)
        host->preempt_signal(m, gp);
    }
  } else if (old_urg.sa_flags & SA_SIGINFO) {
    if (old_urg.sa_sigaction) old_urg.sa_sigaction(sig, info, context);
  } else if (old_urg.sa_handler != SIG_DFL && old_urg.sa_handler != SIG_IGN) {
    old_urg.sa_handler(sig);
  }
  errno = e;
}

/* What the program wishes for SIGURG, kept behind ours (*old may be NULL). */
void preempt_chain(const struct sigaction *act, struct sigaction *old) {
  if (old) *old = old_urg;
  if (act) old_urg = *act;
}

void preempt_init(void) {
  const char *env = getenv("GMPRT_PREEMPT");
  enabled = !(env && strcmp(env, "0") == 0);
  signals = enabled && !os_signals_left();
  if (!signals) return;
  injects = !SIGNALS_LATE && arch_preempt_init(preempted);
  struct sigaction sa = {.sa_sigaction = sigurg, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART}, now;
  sigemptyset(&sa.sa_mask);
  if (sigaction(SIGURG, NULL, &now) == 0 && now.sa_sigaction != sigurg) old_urg = now;
  sigaction(SIGURG, &sa, NULL);
}

