/* signal.c - the signal mask belongs to the goroutine, signals to the thread that waits in run().
 *
 * The runtime's threads block nearly all signals (base/os_linux.c), so that Python's handlers run on the program's
 * own threads.  That must not be seen: a goroutine has a mask of its own (host/sigmask.c), which
 * pthread_sigmask reads and changes; the real one takes effect for the main goroutine, on the thread that
 * lends its state (lender.c), and around calls that make processes and threads (fork.c).
 *
 * A signal that the main goroutine sends to its own process has run its C handler when the call returns, as on a
 * thread that does not block it: the lending thread is asked to be ready for it (lender_expose), and then to
 * acknowledge (lender_sync).
 *
 * A signal for the process is its main thread's if that does not block it, and else any thread's.  The thread that
 * lends blocks all for as long as it is awake, so that another thread of the program may get it instead: the relay
 * in front of the program's handlers passes it on to the thread that should have got it.
 *
 * A signal for one goroutine (pthread_kill with its ident) is one for the process, unless that goroutine blocks it:
 * then it is pending for it alone, wherever it runs, until it waits for it or unblocks it.
 *
 * The runtime's own handlers (stack overflow, preemption) stay in front whatever the program installs: what it
 * wishes is kept behind them, and called for what is not ours. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "py/host/fork.h"
#include "py/host/identity.h"
#include "py/host/lender.h"
#include "py/host/sigmask.h"
#include "py/interpose/hooks/hooks.h"

/* The running goroutine, attached or not; NULL: an ordinary thread, or a vfork child. */
static G *running(void) {
  G *gp = curg();
  return gp && gp->kind == GK_HOST && !in_vfork_child() && !fork_in_progress() ? gp : NULL;
}

/* ---- pending for one goroutine --------------------------------------------------------------------------------- */

static uint64_t bit_of(int sig) { return sig > 0 && sig <= 64 ? UINT64_C(1) << (sig - 1) : 0; }

/* One of these that is pending for x, which is not so any more; 0: none. */
static int pending_take(extras *x, uint64_t set) {
  uint64_t these;
  while ((these = atomic_load(&x->sigpending) & set) != 0) {
    uint64_t one = these & -these;
    if (atomic_fetch_and(&x->sigpending, ~one) & one) return __builtin_ctzll(one) + 1;
  }
  return 0;
}

/* gp blocks it.  Who waits says so before it looks for the last time, so one of the two sees the other.  Its thread is
 * only kicked: the wait may be over by now, and what is sent to a thread stays with that. */
static void pending_add(G *gp, int sig) {
  extras *x = handle_of(gp)->more;
  atomic_fetch_or(&x->sigpending, bit_of(sig));
  if (atomic_load(&x->sigwaits) & bit_of(sig)) os_kick(x->sigtid);
}

/* What it does not block any more is for the process. */
static void pending_send(extras *x, uint64_t unblocked) {
  for (int sig; (sig = pending_take(x, unblocked)) != 0;) real.kill(getpid(), sig);
}

static int mask_change(G *gp, int how, const sigset_t *set, sigset_t *old) {
  uint64_t now = mask_of(gp), bits = set ? to_bits(set) : 0;
  if (old) from_bits(old, now);
  if (!set) return 0;
  switch (how) {
    case SIG_BLOCK: bits = now | bits; break;
    case SIG_UNBLOCK: bits = now & ~bits; break;
    case SIG_SETMASK: break;
    default: return EINVAL;
  }
  bits &= ~(UINT64_C(1) << (SIGKILL - 1) | UINT64_C(1) << (SIGSTOP - 1));
  if (!mask_set(gp, bits)) return ENOMEM;
  if (unlikely(handle_of(gp)->more && load_rlx(&handle_of(gp)->more->sigpending)))
    pending_send(handle_of(gp)->more, ~bits);
  return 0;
}

int hook_pthread_sigmask(int how, const sigset_t *set, sigset_t *old) {
  G *gp = running();
  if (gp) return mask_change(gp, how, set, old);
  int r = real.pthread_sigmask(how, set, old);
  if (set && !fork_in_progress()) mask_of_thread_changed();
  return r;
}

int hook_sigprocmask(int how, const sigset_t *set, sigset_t *old) {
  G *gp = running();
  if (!gp) return real.sigprocmask(how, set, old);
  int e = mask_change(gp, how, set, old);
  if (e) errno_set(e);
  return e ? -1 : 0;
}

/* What is pending and blocked: the threads block more than the goroutine does. */
int hook_sigpending(sigset_t *set) {
  int r = real.sigpending(set);
  G *gp = running();
  if (r == 0 && gp) {
    sigset_t pending;
    extras *x = handle_of(gp)->more;
    from_bits(&pending, (to_bits(set) & mask_of(gp)) | (x ? load_rlx(&x->sigpending) : 0));
    *set = pending;
  }
  return r;
}

/* The real mask is the goroutine's while something is made that inherits it. */
bool mask_enter(maskscope *s) {
  s->g = running();
  if (!s->g) return false;
  sigset_t mask;
  from_bits(&mask, mask_of(s->g));
  real.pthread_sigmask(SIG_SETMASK, &mask, &s->old);
  return true;
}

void mask_leave(maskscope *s) {
  if (!s->g) return;
  int e = errno_get();
  real.pthread_sigmask(SIG_SETMASK, &s->old, NULL);
  errno_set(e);
}

/* ---- waiting for signals --------------------------------------------------------------------------------------- */

static extras *extras_here(void) {
  G *gp = running();
  return gp ? handle_of(gp)->more : NULL;
}

/* They are blocked everywhere, so the thread that waits gets them. */
static int wait_real(const sigset_t *set, siginfo_t *info, const struct timespec *t) {
  return t ? real.sigtimedwait(set, info, t) : real.sigwaitinfo(set, info);
}

static int told(siginfo_t *info, int sig) {
  if (info) *info = (siginfo_t){.si_signo = sig, .si_code = SI_TKILL};
  if (info) info->si_pid = getpid(), info->si_uid = getuid();
  return sig;
}

/* For what may be sent to x alone, too.  A kick before the wait is not lost: it is blocked, and one of those waited for.
 * (So from there on nothing may open it.  The hand-off does, if it starts a thread, which is to have it open from its
 * first instruction: a kick in that moment ran its handler, and the wait never ended.)
 * Others kick as well: EINTR, as without us. */
static int wait_kicked(extras *x, const sigset_t *set, siginfo_t *info, const struct timespec *t) {
  uint64_t bits = to_bits(set), kick = bit_of(os_kick_signal());
  sigset_t both, kicks, old;
  from_bits(&both, bits | kick);
  from_bits(&kicks, kick);
  real.pthread_sigmask(SIG_BLOCK, &kicks, &old);
  x->sigtid = os_gettid();
  atomic_store(&x->sigwaits, bits);
  int pending = pending_take(x, bits), r = pending ? 0 : wait_real(&both, info, t), e = errno_get();
  atomic_store(&x->sigwaits, 0);
  real.pthread_sigmask(SIG_SETMASK, &old, NULL);
  if (r == os_kick_signal()) {
    pending = pending_take(x, bits);
    r = -1, e = EINTR;
  }
  errno_set(e);
  return pending ? told(info, pending) : r;
}

/* t NULL: for ever. */
static int wait_signal(const sigset_t *set, siginfo_t *info, const struct timespec *t) {
  extras *x = extras_here();
  call_handoff();
  return x ? wait_kicked(x, set, info, t) : wait_real(set, info, t);
}

int hook_sigwaitinfo(const sigset_t *set, siginfo_t *info) { return wait_signal(set, info, NULL); }
int hook_sigtimedwait(const sigset_t *set, siginfo_t *info, const struct timespec *t) { return wait_signal(set, info, t); }

/* Of these three the only one that no signal handler ends. */
int hook_sigwait(const sigset_t *set, int *sig) {
  int r, e = errno_get();
  do r = wait_signal(set, NULL, NULL);
  while (r < 0 && errno_get() == EINTR);
  if (r < 0) return errno_get();
  errno_set(e);
  *sig = r;
  return 0;
}

/* ---- sending ------------------------------------------------------------------------------------------------------ */

/* The main goroutine sends a signal to its own process, or may do so: between these its thread is open to it. */
static G *sending(bool to_us) {
  G *gp = to_us ? running() : NULL;
  if (!gp || !handle_of(gp)->lent) return NULL;
  lender_expose(gp);
  return gp;
}

/* Its handler has run before the call returns. */
static void sent(G *gp) {
  if (!gp) return;
  int e = errno_get();
  lender_sync(gp);
  errno_set(e);
}

int hook_kill(pid_t pid, int sig) {
  G *gp = sending(pid == getpid() || pid == 0 || pid == -getpgrp());
  int r = real.kill(pid, sig);
  sent(gp);
  return r;
}
int hook_killpg(pid_t pgrp, int sig) {
  G *gp = sending(pgrp == 0 || pgrp == getpgrp());
  int r = real.killpg(pgrp, sig);
  sent(gp);
  return r;
}

/* Those that mean this very thread, and end the process. */
static bool synchronous(int sig) {
  return sig == SIGSEGV || sig == SIGBUS || sig == SIGFPE || sig == SIGILL || sig == SIGABRT || sig == SIGTRAP ||
         sig == SIGSYS;
}

/* For the main goroutine its thread is the one that lends; for others any thread of the process. */
int hook_raise(int sig) {
  G *gp = running();
  if (!gp || synchronous(sig)) return real.raise(sig);
  pid_t tid = lent_tid(gp);
  if (!tid) return real.kill(getpid(), sig);
  int r = (int)real.syscall(SYS_tgkill, getpid(), tid, sig);
  sent(gp);
  return r;
}

int hook_pthread_kill(pthread_t t, int sig) {
  if (!is_goroutine(t)) {
    G *gp = sending(running() && t == hook_pthread_self());
    int r = real.pthread_kill(t, sig);
    sent(gp);
    return r;
  }
  G *to = goroutine_of(t);
  if (!to) return ESRCH;
  if (sig == 0) return 0;
  if (synchronous(sig) && running() && t == hook_pthread_self()) return real.raise(sig);
  if (handle_of(to)->masked && handle_of(to)->more->sigmask & bit_of(sig)) return pending_add(to, sig), 0;
  return real.kill(getpid(), sig) == 0 ? 0 : errno_get();
}

/* pidfd_send_signal and tgkill have no functions of their own everywhere. */
long hook_signal_syscall(long number, long a, long b, long c, long d, long e, long f) {
  G *gp = sending(number == SYS_pidfd_send_signal || number == SYS_tgkill);
  long r = real.syscall(number, a, b, c, d, e, f);
  sent(gp);
  return r;
}

/* ---- handlers --------------------------------------------------------------------------------------------------- */

/* What the program wished, for signals in whose way the relay stands. */
static struct sigaction wished[NSIG];
typedef void handler(int sig, siginfo_t *info, void *context); /* one with a single parameter ignores the others */
static _Atomic(handler *) handlers[NSIG];

/* Signals for the process go to the thread that lends, if the main goroutine does not block them. */
static void relay(int sig, siginfo_t *info, void *context) {
  bool aimed = info->si_code == SI_TKILL; /* at this very thread */
  if (!aimed && os_gettid() != getpid() && lender_takes(sig)) {
    int e = errno_get();
    siginfo_t copy = *info;
    copy.si_code = SI_QUEUE; /* only the kernel may say anything else to another thread */
    real.syscall(SYS_rt_tgsigqueueinfo, getpid(), getpid(), sig, &copy);
    errno_set(e);
    return;
  }
  load_acq(&handlers[sig])(sig, info, context);
}

static bool relayed(int sig, const struct sigaction *act) {
  return sig > 0 && sig < NSIG && !synchronous(sig) && sig != os_kick_signal() && act->sa_handler != SIG_DFL &&
         act->sa_handler != SIG_IGN && act->sa_sigaction != relay;
}

static int relay_install(int sig, const struct sigaction *act, struct sigaction *old) {
  struct sigaction ours = *act, before = wished[sig];
  handler *running_now = load_rlx(&handlers[sig]);
  ours.sa_flags |= SA_SIGINFO;
  ours.sa_sigaction = relay;
  wished[sig] = *act;
  store_rel(&handlers[sig], act->sa_sigaction);
  int r = real.sigaction(sig, &ours, old);
  if (old && old->sa_sigaction == relay) *old = before;
  if (r != 0) {
    wished[sig] = before;
    store_rel(&handlers[sig], running_now);
  }
  return r;
}

int hook_sigaction(int sig, const struct sigaction *act, struct sigaction *old) {
  if (in_vfork_child()) return real.sigaction(sig, act, old);
  if (os_signal_chain(sig, act, old)) return 0;
  if (act && relayed(sig, act)) return relay_install(sig, act, old);
  int r = real.sigaction(sig, act, old);
  if (r == 0 && old && old->sa_sigaction == relay) *old = wished[sig];
  return r;
}

/* Handlers that were there before the hooks. */
void signals_relay(bool on) {
  for (int sig = 1; sig < NSIG; sig++) {
    struct sigaction now;
    if (sig == SIGURG || real.sigaction(sig, NULL, &now) != 0) continue;
    if (on && relayed(sig, &now)) relay_install(sig, &now, NULL);
    if (!on && now.sa_sigaction == relay) real.sigaction(sig, &wished[sig], NULL);
  }
}

/* A goroutine's signal stack would replace its thread's, and be freed: kept in mind, not applied. */
int hook_sigaltstack(const stack_t *ss, stack_t *old) {
  if (!running()) return real.sigaltstack(ss, old);
  if (old) *old = (stack_t){.ss_flags = SS_DISABLE};
  return 0;
}
