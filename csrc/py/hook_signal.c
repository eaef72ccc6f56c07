/* hook_signal.c - the signal mask belongs to the goroutine, and signals to the thread that waits in run().
 *
 * The runtime's threads block nearly all signals (os_linux.c), so that Python's handlers run on the program's
 * own threads.  That must not be seen: a goroutine has a mask of its own, inherited at go(), which
 * pthread_sigmask reads and changes; the real one takes effect for the main goroutine, on the thread that
 * lends its state (pyrun.c), and around calls that make processes and threads (hook_fork.c).
 *
 * A signal that a goroutine sends to its own process has run its C handler when the call returns, as on a
 * thread that does not block it: the lending thread is asked to acknowledge (lender_sync).
 *
 * The runtime's own handlers (stack growth, preemption) stay in front whatever the program installs: what it
 * wishes is kept behind them, and called for what is not ours. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "interpose.h"

/* The running goroutine, attached or not; NULL: an ordinary thread, or a vfork child. */
static G *running(void) {
  M *m = getm();
  G *gp = m ? load_rlx(&m->curg) : NULL;
  return gp && gp->kind == GK_HOST && !in_vfork_child(m) && !interpose_in_fork() ? gp : NULL;
}

/* ---- masks --------------------------------------------------------------------------------------------------- */

/* The mask of an ordinary thread, as far as it is known: asked once, then kept by the hook. */
static __thread struct {
  bool known;
  uint64_t bits;
} thread_mask __attribute__((tls_model("initial-exec")));

/* Signals are numbered from 1; the first word of a sigset_t has them all. */
static uint64_t to_bits(const sigset_t *s) {
  uint64_t b;
  memcpy(&b, s, sizeof b);
  return b;
}
static void from_bits(sigset_t *s, uint64_t b) {
  sigemptyset(s);
  memcpy(s, &b, sizeof b);
}

static uint64_t mask_of_thread(void) {
  if (!thread_mask.known) {
    sigset_t s;
    pthread_sigmask(SIG_SETMASK, NULL, &s);
    thread_mask.bits = to_bits(&s);
    thread_mask.known = true;
  }
  return thread_mask.bits;
}

static uint64_t mask_of_handle(Goroutine *self) {
  return self->masked ? self->more->sigmask : os_program_bits();
}
uint64_t mask_of(G *gp) { return mask_of_handle(gp->handle); }

/* false: no memory. */
static bool mask_set(G *gp, uint64_t bits) {
  Goroutine *self = gp->handle;
  if (self->masked || bits != os_program_bits()) {
    if (!extras_raw(self)) return false;
    self->more->sigmask = bits;
    self->masked = true;
  }
  if (self->lent) lender_set_mask(gp, bits); /* the lending thread adopts it before we return */
  return true;
}

/* At go(), by the spawner: self has its mask.  false: exception set. */
bool mask_inherit(Goroutine *self, Goroutine *parent) {
  if (likely(parent && !parent->masked)) return true;
  uint64_t bits = parent ? parent->more->sigmask : mask_of_thread();
  if (likely(bits == os_program_bits())) return true;
  if (!extras_of(self)) return false;
  self->more->sigmask = bits;
  self->masked = true;
  return true;
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
  return mask_set(gp, bits) ? 0 : ENOMEM;
}

int hook_pthread_sigmask(int how, const sigset_t *set, sigset_t *old) {
  G *gp = running();
  if (gp) return mask_change(gp, how, set, old);
  int r = real.pthread_sigmask(how, set, old);
  if (set && !interpose_in_fork()) thread_mask.known = false;
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
    from_bits(&pending, to_bits(set) & mask_of(gp));
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

/* They are blocked everywhere, so the thread that waits gets them. */
int hook_sigwait(const sigset_t *set, int *sig) {
  call_handoff();
  return real.sigwait(set, sig);
}
int hook_sigwaitinfo(const sigset_t *set, siginfo_t *info) {
  call_handoff();
  return real.sigwaitinfo(set, info);
}
int hook_sigtimedwait(const sigset_t *set, siginfo_t *info, const struct timespec *t) {
  call_handoff();
  return real.sigtimedwait(set, info, t);
}

/* ---- sending ------------------------------------------------------------------------------------------------------ */

/* The signal was sent to this process: its handler has run before the call returns. */
static int acknowledged(int r, bool to_us) {
  G *gp = r == 0 && to_us ? running() : NULL;
  if (gp && ((Goroutine *)gp->handle)->lent) {
    int e = errno_get();
    lender_sync(gp);
    errno_set(e);
  }
  return r;
}

int hook_kill(pid_t pid, int sig) {
  return acknowledged(real.kill(pid, sig), pid == getpid() || pid == 0 || pid == -getpgrp());
}
int hook_killpg(pid_t pgrp, int sig) {
  return acknowledged(real.killpg(pgrp, sig), pgrp == 0 || pgrp == getpgrp());
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
  return acknowledged((int)real.syscall(SYS_tgkill, getpid(), tid, sig), true);
}

int hook_pthread_kill(pthread_t t, int sig) {
  if (!is_goroutine(t)) return acknowledged(real.pthread_kill(t, sig), running() && t == hook_pthread_self());
  if (!goroutine_alive(t)) return ESRCH;
  if (sig == 0) return 0;
  if (synchronous(sig) && running() && t == hook_pthread_self()) return real.raise(sig);
  return real.kill(getpid(), sig) == 0 ? 0 : errno_get();
}

/* pidfd_send_signal and tgkill have no functions of their own everywhere. */
long signal_syscall_done(long number, long r) {
  if (number == SYS_pidfd_send_signal || number == SYS_tgkill) acknowledged((int)r, true);
  return r;
}

/* ---- handlers --------------------------------------------------------------------------------------------------- */

int hook_sigaction(int sig, const struct sigaction *act, struct sigaction *old) {
  M *m = getm();
  if ((m && in_vfork_child(m)) || !os_signal_chain(sig, act, old)) return real.sigaction(sig, act, old);
  return 0;
}

/* A goroutine's signal stack would replace its thread's, and be freed: kept in mind, not applied. */
int hook_sigaltstack(const stack_t *ss, stack_t *old) {
  if (!running()) return real.sigaltstack(ss, old);
  if (old) *old = (stack_t){.ss_flags = SS_DISABLE};
  return 0;
}
