/* park.pml - one goroutine parks, several parties want to wake it.
 *
 * Protocol: section 4 (park, ready, direct switch).
 *
 * The goroutine G locks a channel, links its waiter, and leaves its stack.  Whoever lands opens the wait,
 * arms the deadline and unlocks the channel.  Senders, the timer and cancel claim the wait: the winner of one
 * CAS makes G runnable, and any M may then enter its stack.
 *
 * Parameters
 *   WAITS      times that G parks
 *   MS         machines
 *   SENDERS    threads that send one value each
 *   CANCELS    0 or 1
 *   DEADLINE   each wait has a deadline, which passes (1) or there is none (0)
 *   NOCANCEL   the first so many waits are such that no cancel may end (N); it stays pending for a later one
 *   SLEEP      the waits have a deadline and no channel: no lock stands between lander and cancel (SENDERS=0)
 *
 * Broken variants
 *   BROKEN_OPEN_BEFORE_SWITCH      wait opened and channel unlocked by the parker itself
 *   BROKEN_TIMER_BEFORE_SWITCH     deadline armed by the parker itself
 *   BROKEN_NO_CLAIM                a waker that finds the waiter linked or the timer due needs no CAS
 *   BROKEN_NO_SEQ                  the claim does not compare seq
 *   BROKEN_CANCEL_TWO_WORDS        cancel looks at S and sets C in two steps
 *   BROKEN_CANCEL_IGNORES_N        cancel looks at S alone
 *   BROKEN_CLAIM_DROPS_CANCEL      a claim writes the whole word, and with it a cancel that N had put off
 *   BROKEN_NO_UNLINK               G leaves the rest of its wait in the queue
 *   BROKEN_DISARM_DOES_NOT_WAIT    G stops its timer without regard to a lander that is about to arm it: cancel
 *                                  needs no lock, so G may be there first.  (A Python goroutine cannot: its
 *                                  lander has the GIL.)
 *
 * Abstracted
 *   Memory is sequentially consistent.  The lander is on g0; landing on another goroutine's stack does the
 *   same steps.  A timer heap is one timer, its lock one step.  A sender that finds no waiter comes back when
 *   there is one.
 *
 * Invariants
 *   1. A stack is entered only after its leaver has left it (switch_in).
 *   2. Each wait is claimed once, and by a party of this wait; each claim is one push, one resume (won,
 *      ready).
 *   3. A timer is armed at most once at a time, for the wait that G is in (arm).
 *   4. No wait with N ends by cancel (won).
 *   5. At rest: G has had all its waits; cancel was delivered once or is still pending; no value is lost; queue
 *      and timer are empty (check). */

#ifndef WAITS
#define WAITS 2
#endif
#ifndef MS
#define MS 2
#endif
#ifndef SENDERS
#define SENDERS 1
#endif
#ifndef CANCELS
#define CANCELS 1
#endif
#ifndef NOCANCEL
#define NOCANCEL 0
#endif
#ifndef DEADLINE
#define DEADLINE 1
#endif

/* G.status */
#define RUNNABLE 0
#define RUNNING 1
#define WAITING 2
#define ENDED 3

/* Why G runs again. */
#define NONE 0
#define VALUE 1
#define TIMEOUT 2
#define CANCELLED 3

/* The timer.  ARMING: the parker has announced what its lander will do. */
#define IDLE 0
#define ARMING 1
#define ARMED 2

byte status = RUNNABLE;
byte runq = 1;         /* how often G stands in a run queue */
byte stack;            /* the M that is on G's stack */
byte seq; bool S, C, N; /* G.wait: one word, changed by CAS only */
byte result;
byte timer, timer_seq;
bool lock, linked;     /* the channel: lock, and G's waiter in its queue */
byte linked_seq;
byte waits;            /* ghosts */
byte claims;
byte sent, received, cancelled;

#ifdef SLEEP
#define LOCK true
#define UNLOCK true
#else
#define LOCK atomic { !lock -> lock = true }
#define UNLOCK lock = false
#endif

/* ---- the wait word ------------------------------------------------------------------------------ */

/* ok := the wait `s` was open and is now ours. */
inline claim(s, ok) {
  d_step {
#if defined(BROKEN_NO_CLAIM)
    ok = true;
#elif defined(BROKEN_NO_SEQ)
    ok = S;
#else
    ok = (S && seq == s);
#endif
    S = (ok -> false : S);
    N = (ok -> false : N)
#ifdef BROKEN_CLAIM_DROPS_CANCEL
    ; C = (ok -> false : C)
#endif
  }
}

/* The winner's business: the result, and when no lock is held any more, status and push. */
inline won(s, why) {
  d_step { assert(s == seq); claims++; assert(claims == 1); assert(why != CANCELLED || seq > NOCANCEL); result = why }
}
inline ready() {
  d_step { assert(status == WAITING); status = RUNNABLE }
  d_step { runq++; assert(runq == 1) }
}

/* ---- G and its Ms ------------------------------------------------------------------------------- */

inline open() { d_step { assert(!S && (!C || seq < NOCANCEL)); seq++; S = true; N = (seq <= NOCANCEL) } }

inline arm() {
#if DEADLINE
  d_step { assert(timer == ARMING && seq == w); timer = ARMED; timer_seq = w }
#else
  skip
#endif
}

proctype M(byte me) {
  byte w; /* the seq of the wait that this M has to open */

idle:
end_idle:
  atomic { runq > 0 -> runq-- }
  d_step { assert(status == RUNNABLE); status = RUNNING }
  d_step { assert(stack == 0); stack = me } /* switch_in */

  /* On G's stack. */
  if
  :: waits == 0 && seq == 0
  :: else ->
     assert(claims == 1 && result != NONE);
#if DEADLINE
     if
#ifndef BROKEN_DISARM_DOES_NOT_WAIT
     :: atomic { timer != ARMING -> timer = IDLE }
#else
     :: timer = IDLE
#endif
     fi;
#endif
     if
     :: result == VALUE -> received++
     :: else ->
#ifndef BROKEN_NO_UNLINK
        LOCK;
        linked = false;
        UNLOCK
#endif
     fi;
     waits++
  fi;
  if
  :: waits == WAITS -> status = ENDED; stack = 0; goto idle
  :: else
  fi;

  /* park */
  LOCK;
  w = seq + 1;
#ifndef SLEEP
  d_step { assert(!linked); linked = true; linked_seq = w };
#endif
  d_step { claims = 0; result = NONE };
#if DEADLINE
  d_step { assert(timer == IDLE); timer = ARMING };
#endif
#ifdef BROKEN_OPEN_BEFORE_SWITCH
  status = WAITING;
  atomic {
    if
    :: C
    :: else -> open()
    fi
  }
  if
  :: seq == w -> arm(); UNLOCK
  :: else
  fi;
#endif
#ifdef BROKEN_TIMER_BEFORE_SWITCH
  d_step { timer = ARMED; timer_seq = w };
#endif
  d_step { assert(stack == me); stack = 0 }

  /* land: off G's stack */
#ifdef BROKEN_OPEN_BEFORE_SWITCH
  if
  :: seq == w -> goto idle
  :: else
  fi;
#endif
  status = WAITING;
  atomic {
    if
    :: C && seq >= NOCANCEL -> seq++; C = false; cancelled++; goto abort
    :: else -> open()
    fi
  }
#ifndef BROKEN_TIMER_BEFORE_SWITCH
  arm();
#endif
  UNLOCK;
  w = 0;
  goto idle;

abort:
  won(w, CANCELLED);
  timer = IDLE;
  linked = false;
  UNLOCK;
  ready();
  w = 0;
  goto idle
}

/* ---- those who wake ----------------------------------------------------------------------------- */

proctype sender() {
  byte s; bool ok;

again:
end_sender:
  linked;
  LOCK;
  if
  :: linked -> s = linked_seq; linked = false
  :: else -> UNLOCK; goto again
  fi;
  claim(s, ok);
  if
  :: ok -> won(s, VALUE); sent++; UNLOCK; ready()
  :: else -> UNLOCK; goto again
  fi
}

/* Takes what is due off the heap, then wakes, without the heap's lock. */
proctype clock() {
  byte s; bool ok;

again:
end_clock:
  atomic { timer == ARMED -> timer = IDLE; s = timer_seq }
  claim(s, ok);
  if
  :: ok -> won(s, TIMEOUT); ready()
  :: else
  fi;
  d_step { s = 0; ok = false }
  goto again
}

proctype cancel() {
  byte s;

#ifdef BROKEN_CANCEL_TWO_WORDS
  if
  :: atomic { S -> S = false; s = seq }
  :: !S -> C = true; goto pending
  fi;
#else
  atomic {
    if
#ifdef BROKEN_CANCEL_IGNORES_N
    :: S -> S = false; s = seq
#else
    :: S && !N -> S = false; s = seq
#endif
    :: else -> C = true; goto pending
    fi
  }
#endif
  cancelled++;
  won(s, CANCELLED);
  ready();
pending:
  skip
}

/* Nothing moves any more. */
proctype check() {
  timeout ->
  assert(status == ENDED && waits == WAITS && stack == 0 && runq == 0);
  assert(cancelled + C == CANCELS);
  assert(sent == received);
  assert(!lock && !linked && timer == IDLE && !S)
}

init {
  atomic {
    run M(1);
#if MS > 1
    run M(2);
#endif
#if MS > 2
    run M(3);
#endif
#if SENDERS > 0
    run sender();
#endif
#if SENDERS > 1
    run sender();
#endif
#if DEADLINE
    run clock();
#endif
#if CANCELS
    run cancel();
#endif
    run check()
  }
}
