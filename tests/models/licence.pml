/* licence.pml - who drives the Python goroutines, and why no wake-up is lost.
 *
 * Protocol: section 2 (the licence) and 3 (blocking calls, retake, return).
 *
 * Ms take turns at driving the queue L.  The ring of L belongs to whoever holds the GIL; the licence
 * (`holder`) only says who is to come and empty it.  Sysmon takes P and licence away from an M in a blocking
 * call, as late as it likes after it looked.  A foreign thread pushes to the ring with the GIL in hand,
 * timers and the poller push to the inbox without it.
 *
 * Parameters
 *   MS, PS     machines, processors (at most 2)
 *   CALLS      blocking calls, made by any goroutine
 *   WAITCALL   the call returns only when all other work is done: shows that it stops nobody (CALLS=1, MS>1)
 *   PALONE     sysmon may take the P of an M in HOST and leave it the licence
 *   NATIVES    native goroutines, started by Python ones: Ps work in turns
 *   SPAWNS     goroutines that the driver pushes, without a look
 *   FOREIGNS   goroutines pushed by the foreign thread
 *   INBOX      goroutines pushed to the inbox by the poller
 *   FORCED     dropping the GIL may last until a thread that waited for it has it (forced switching)
 *
 * Broken variants
 *   BROKEN_NO_LOOK_AFTER_RELEASE   an M without P gives the licence up and sleeps
 *   BROKEN_NO_LOOK_AFTER_IDLE      a P goes to the idle list and L is not looked at again
 *   BROKEN_NO_LOOK_AFTER_PUSH      the inbox is filled and the holder not looked at
 *   BROKEN_NO_LOOK_AT_NATIVE       a P goes to the idle list, then looks at L but not at native work
 *   BROKEN_RING_OWNED_BY_LICENCE   ring operations need the licence, not the GIL: the first pop comes before
 *                                  the GIL is taken, everybody else pushes to the inbox
 *   BROKEN_NO_PIN                  an M out of host code goes on with its P without the CAS
 *   BROKEN_NO_RETAKE               sysmon leaves P and licence to an M in a call
 *   BROKEN_LICENCE_NEEDS_P         sysmon takes the licence only from an M that still has its P
 *
 * Abstracted
 *   Memory is sequentially consistent: a fence is the order of two statements.  Goroutines are counted, not
 *   named; runnext and overflow list are part of the ring.  Sysmon's two looks are one look and a delay.
 *   Idle Ms and the start of new ones are one rule: a P that was handed out is taken by any M that sleeps.
 *   Slices and turns end at any time.
 *
 * Invariants
 *   1. One thread at a time works on the ring (ring_enter).
 *   2. A P that runs native code or the scheduler is changed by its own M only (leave_running).
 *   3. At rest: all goroutines done, queues empty, holder 0, GIL free, all Ps idle (check). */

#ifndef MS
#define MS 2
#endif
#ifndef PS
#define PS 1
#endif
#ifndef CALLS
#define CALLS 1
#endif
#ifndef NATIVES
#define NATIVES 0
#endif
#ifndef SPAWNS
#define SPAWNS 0
#endif
#ifndef FOREIGNS
#define FOREIGNS 1
#endif
#ifndef INBOX
#define INBOX 2
#endif
#define TOTAL (FOREIGNS + INBOX + SPAWNS)

/* P.status.  HAND: with sysmon, between retake and hand-off.  HANDED: given to an M that has not woken yet. */
#define IDLE 0
#define RUNNING 1
#define HOST 2
#define HAND 3
#define HANDED 4
#define OF(who, state) ((who) * 8 + (state))

/* Owners of the GIL besides the Ms 1..MS. */
#define NOBODY 0
#define FOREIGN (MS + 1)

byte gil;
#ifdef FORCED
byte gil_last, gil_waiters;
#endif
byte holder;              /* L.holder */
byte ring, inbox;         /* runnable Python goroutines */
byte nwork;               /* runnable native goroutines, global queue */
byte pst[PS + 1];         /* P.status: state, and for RUNNING and HOST the M it belongs to */
bool out[MS + 1];         /* where(the goroutine on this M) == OUT */
byte ring_user;           /* ghost */

byte calls = CALLS, natives = NATIVES, spawns = SPAWNS; /* still to come */
byte done, ndone;                                       /* goroutines at their end */

/* ---- the GIL ------------------------------------------------------------------------------------ */

#ifdef FORCED
inline take_gil(who) {
  gil_waiters++;
  atomic { gil == NOBODY -> gil = who; gil_last = who; gil_waiters-- }
}
inline drop_gil(who) {
  if
  :: atomic { gil_waiters > 0 -> assert(gil == who); gil = NOBODY };
     gil_last != who
  :: atomic { assert(gil == who); gil = NOBODY }
  fi
}
#else
inline take_gil(who) { atomic { gil == NOBODY -> gil = who } }
inline drop_gil(who) { d_step { assert(gil == who); gil = NOBODY } }
#endif

/* ---- L ------------------------------------------------------------------------------------------ */

/* A ring operation takes two steps, whatever is believed to protect it. */
inline ring_enter(who) { d_step { assert(ring_user == NOBODY); ring_user = who } }
inline ring_leave(change) { d_step { ring = ring + change; ring_user = NOBODY } }

inline ring_push(who) {
#ifdef BROKEN_RING_OWNED_BY_LICENCE
  inbox++
#else
  ring_enter(who);
  ring_leave(1)
#endif
}

/* found := L is free and not empty.  Three loads in this order.  What is drained in between belongs to a
 * driver, who looks again when he stops. */
inline look(found) {
  found = (holder == NOBODY);
  if
  :: found ->
     found = (ring > 0);
     if
     :: found
     :: else -> found = (inbox > 0)
     fi
  :: else
  fi
}

/* The same, and native work. */
inline look_all(found) {
  look(found);
#if NATIVES && !defined(BROKEN_NO_LOOK_AT_NATIVE)
  found = found || (nwork > 0)
#endif
}

/* ---- Ps ----------------------------------------------------------------------------------------- */

#if PS == 1
#define SOME(state) (pst[1] == state)
#define FIND(p, state) p = (pst[1] == state -> 1 : 0)
#else
#define SOME(state) (pst[1] == state || pst[2] == state)
#define FIND(p, state) p = (pst[1] == state -> 1 : (pst[2] == state -> 2 : 0))
#endif

/* A RUNNING P is changed by the M that has it, and by no other. */
inline leave_running(p, who, to) {
  d_step { assert(pst[p] == OF(who, RUNNING)); pst[p] = to }
}

/* p := an idle P, or 0; sched.lock makes it one step. */
inline take_idle(p, to) {
  d_step {
    FIND(p, IDLE);
    if
    :: p -> pst[p] = to
    :: else
    fi
  }
}

/* Start or wake an M with an idle P; no idle P: nothing. */
inline wake() {
  d_step {
    if
    :: pst[1] == IDLE -> pst[1] = HANDED
#if PS > 1
    :: pst[1] != IDLE && pst[2] == IDLE -> pst[2] = HANDED
#endif
    :: else
    fi
  }
}

/* After every push to L. */
inline pushed() {
  if
  :: holder == NOBODY -> wake()
  :: else
  fi
}

/* ---- M ------------------------------------------------------------------------------------------ */

proctype M(byte me) {
  byte p;      /* its P; in HOST only believed to be */
  byte n;
  bool found;

asleep:
  found = false;
end_asleep:
  atomic { SOME(HANDED) -> FIND(p, HANDED); pst[p] = OF(me, RUNNING) }

sched: /* p is RUNNING, the GIL not held, the licence not ours */
#if NATIVES
  if
  :: atomic { nwork > 0 -> nwork-- }
     assert(pst[p] == OF(me, RUNNING));
     ndone++;
     goto sched
  :: true
  fi;
#endif
  look(found);
  if
  :: !found ->
#if NATIVES
     if
     :: nwork > 0 -> goto sched
     :: else
     fi;
#endif
     goto idle
  :: else
  fi;
  atomic {
    if
    :: holder == NOBODY -> holder = me
    :: else -> goto sched
    fi
  }
#ifdef BROKEN_RING_OWNED_BY_LICENCE
  leave_running(p, me, OF(me, HOST));
  ring_enter(me);
  d_step { ring = ring + inbox; inbox = 0; n = (ring > 0) }
  ring_leave(-n);
  take_gil(me);
  if
  :: n -> n = 0; goto execute
  :: else -> goto drop
  fi;
#else
  leave_running(p, me, OF(me, HOST));
  take_gil(me);
#endif

drive: /* GIL held; p is HOST, or gone */
  if
  :: holder != me -> goto drop
#if NATIVES
  :: holder == me && nwork > 0 && !SOME(IDLE) -> goto drop /* the turn ends */
#endif
  :: holder == me
  fi;
  d_step { n = inbox; inbox = 0 }
  ring_enter(me);
  d_step { ring = ring + n; n = (ring > 0) }
  ring_leave(-n);
  if
  :: n -> n = 0
  :: else -> goto drop
  fi;

execute: /* a goroutine, in host code */
  if
  :: atomic { calls > 0 -> calls-- }
     out[me] = true;
     drop_gil(me);
#ifdef WAITCALL
     (done + spawns == TOTAL - 1 && nwork == 0);
#endif
     take_gil(me);
     out[me] = false;
     if
     :: holder == me
     :: else -> goto unlicensed
     fi
#if SPAWNS
  :: atomic { spawns > 0 -> spawns-- }
     ring_push(me)
#endif
#if NATIVES
  :: atomic { natives > 0 -> natives-- }
     nwork++;
     wake()
#endif
  :: true
  fi;
finish:
  done++;
  goto drive;

unlicensed: /* back from a call, GIL held, licence lost: win both back, or queue up */
  atomic {
    if
    :: holder == NOBODY -> holder = me
    :: else -> goto requeue
    fi
  }
  d_step {
    if
    :: p && pst[p] == OF(me, HOST)
    :: else ->
       FIND(p, IDLE);
       if
       :: p -> pst[p] = OF(me, HOST)
       :: else
       fi
    fi
  }
  if
  :: p -> goto finish
  :: else
  fi;
requeue:
  ring_push(me);

drop: /* GIL held, licence ours or lost */
  drop_gil(me);
  d_step {
    if
    :: holder == me -> holder = NOBODY
    :: else
    fi
  }
  atomic { /* pin */
    if
#ifdef BROKEN_NO_PIN
    :: p -> pst[p] = OF(me, RUNNING); goto sched
#else
    :: p && pst[p] == OF(me, HOST) -> pst[p] = OF(me, RUNNING); goto sched
#endif
    :: else -> p = 0
    fi
  }
#ifdef BROKEN_NO_LOOK_AFTER_RELEASE
  goto asleep;
#endif
  goto again;

idle:
  leave_running(p, me, IDLE);
  p = 0;
#ifdef BROKEN_NO_LOOK_AFTER_IDLE
  goto asleep;
#endif
again: /* no P: is there work, and a P to do it with? */
  look_all(found);
  if
  :: found ->
     take_idle(p, OF(me, RUNNING));
     if
     :: p -> goto sched
     :: else
     fi
  :: else
  fi;
  goto asleep
}

/* ---- the others --------------------------------------------------------------------------------- */

#ifdef BROKEN_LICENCE_NEEDS_P
#define SEEN(m) SOME(OF(m, HOST))
#else
#define SEEN(m) true
#endif

/* Sees an M in a call, and acts on it later.  p is 0 if that M has lost its P already. */
proctype sysmon() {
  byte c, p;
  bool found;

end_sysmon:
  if
#ifndef BROKEN_NO_RETAKE
  :: atomic {
       holder != NOBODY && out[holder] && SEEN(holder) -> c = holder; FIND(p, OF(c, HOST))
     }
#endif
#ifdef PALONE
  :: atomic { pst[1] % 8 == HOST -> p = 1; pst[1] = HAND; goto handoff }
#if PS > 1
  :: atomic { pst[2] % 8 == HOST -> p = 2; pst[2] = HAND; goto handoff }
#endif
#endif
  :: false
  fi;
  if
  :: p ->
     atomic {
       if
       :: pst[p] == OF(c, HOST) -> pst[p] = HAND
       :: else -> goto moved
       fi
     }
  :: else
  fi;
  d_step {
    if
    :: holder == c -> holder = NOBODY
    :: else
    fi
  }
handoff:
  if
  :: p ->
     look_all(found);
     if
     :: found -> pst[p] = HANDED; goto moved
     :: else -> pst[p] = IDLE
     fi
#ifdef BROKEN_NO_LOOK_AFTER_IDLE
     goto moved
#endif
  :: else
  fi;
  look_all(found);
  if
  :: found -> wake()
  :: else
  fi;
moved:
  atomic { c = 0; p = 0; found = false }
  goto end_sysmon
}

proctype foreign() {
  byte n = FOREIGNS;

  do
  :: n > 0 ->
     take_gil(FOREIGN);
     ring_push(FOREIGN);
     pushed();
     drop_gil(FOREIGN);
     n--
  :: else -> break
  od
}

proctype poller() {
  byte n = INBOX;

  do
  :: n > 0 ->
     inbox++;
#ifndef BROKEN_NO_LOOK_AFTER_PUSH
     pushed();
#endif
     n--
  :: else -> break
  od
}

/* Everything sleeps. */
proctype check() {
  timeout ->
  assert(ring == 0 && inbox == 0 && nwork == 0);
  assert(done == TOTAL - spawns && ndone == NATIVES - natives);
  assert(holder == NOBODY && gil == NOBODY && ring_user == NOBODY);
  assert(pst[1] == IDLE);
#if PS > 1
  assert(pst[2] == IDLE);
#endif
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
    run sysmon();
    run foreign();
    run poller();
    run check()
  }
}
