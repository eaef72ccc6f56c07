"""Executor: a ThreadPoolExecutor whose workers are goroutines.

A worker is a goroutine that is there as long as there is work: it is started by a submit() when
fewer than max_workers run, runs one call after the other, and ends when none is left.  So there are
no idle workers, and nothing waits for work.

`_Work` is what the workers share.  It has no lock: a deque of calls, and the number of workers.
Who appends a call looks at the number then; a worker that finds no call lowers the number and then
looks at the deque again.  One of the two sees the other, so no call is left without a worker.
A new worker takes its first call when it begins, as all others, so calls begin in the order in
which they were submitted; others may have taken all before.  As many calls as there are `coming`
workers count as begun: shutdown() does not cancel them.  A worker knows the executor by a weak
reference: one that is dropped does what it has.

Workers are detached: run() does not cancel them, as it would not end threads.  The end of the
process waits for what was submitted, as that of threads does.  In a forked child there are no
workers, and what was submitted before is the parent's.
"""

from __future__ import annotations

import contextvars
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.thread import BrokenThreadPool
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from gmprt import _core
from gmprt._api.errors import Cancelled, GoExit, GoroutineCancelled

_P = ParamSpec("_P")
_R = TypeVar("_R")


class _Call:
    """One call and its future."""

    def __init__(self, future: Future[Any], fn: Callable[[], Any]) -> None:
        self.future = future
        self._fn = fn
        self._context = contextvars.copy_context()

    def run(self, shield: _core.CancelScope) -> None:
        """In a worker, whose shield it is: to make one takes longer than to enter it."""
        with shield:  # a cancel is for the call: the future's own lock is not
            if not self.future.set_running_or_notify_cancel():
                return
        try:
            result = self._context.run(self._fn)
        except GoExit:
            self._settle(shield, self.future.set_result, None)  # as of a goroutine that ends so
        except Cancelled as error:
            # Whoever asks is another goroutine: Cancelled is for the cancelled one alone.
            cancelled = GoroutineCancelled(error.reason)
            cancelled.__cause__ = error
            self._settle(shield, self.future.set_exception, cancelled)
        except BaseException as error:
            self._settle(shield, self.future.set_exception, error)
            # Its traceback refers to this frame: a cycle that would keep all until a collection.
            del self
        else:
            self._settle(shield, self.future.set_result, result)

    def refuse(self, error: BaseException) -> None:
        """It is not called: that is its outcome, unless somebody has cancelled it."""
        with _core.shield():
            if self.future.set_running_or_notify_cancel():
                self._settle(_core.shield(), self.future.set_exception, error)

    def _settle(
        self, shield: _core.CancelScope, settle: Callable[[Any], None], outcome: object
    ) -> None:
        """A cancel that comes when the call has ended must keep neither the future from it, nor
        those from it that are told.

        What a done callback raises, if no Exception, is logged, as by threads; the worker goes on.
        """
        with shield:
            try:
                settle(outcome)
            except BaseException:
                _log("Exception in worker")


def _log(what: str) -> None:
    from concurrent.futures._base import LOGGER

    LOGGER.critical(what, exc_info=True)


class _Work:
    def __init__(
        self, executor: Executor, most: int, name: str, initialize: Callable[[], object] | None
    ) -> None:
        self.broken: str | None = None
        self._started = _core.AtomicInt()
        self._most = most
        self._name = name
        self._initialize = initialize
        self._executor = weakref.ref(executor)
        self.begin()

    def begin(self) -> None:
        """With no calls and no workers."""
        self.calls: deque[_Call] = deque()
        self.workers = _core.WaitGroup()
        self._running = _core.AtomicInt()
        self._coming = _core.AtomicInt()

    def unlock(self) -> None:
        """Who held the executor's lock is not in this process."""
        executor = self._executor()
        if executor is not None:
            executor._shutdown_lock = threading.Lock()

    def add(self, call: _Call) -> None:
        self.calls.append(call)
        if self._enter():
            self._start()

    def _enter(self) -> bool:
        while (running := self._running.load()) < self._most:
            if self._running.compare_and_swap(running, running + 1):
                return True
        return False

    def _start(self) -> None:
        self._coming.add(1)
        try:
            worker = self.workers.go(self._work)
        except BaseException:
            self._coming.add(-1)
            self._running.add(-1)
            raise
        worker.detach()
        worker.name = f"{self._name}_{self._started.add(1) - 1}"

    def _work(self) -> None:
        usable = self.broken is None and self._initialized()
        self._coming.add(-1)
        if not usable:
            self._break()
            return
        shield = _core.shield()
        call = self._next()
        while call is not None:
            call.run(shield)
            call = None  # its future's result may be the last reference to something
            call = self._next()

    def _next(self) -> _Call | None:
        """Another call; None: the worker is none any more."""
        while True:
            try:
                return self.calls.popleft()
            except IndexError:
                self._running.add(-1)
                if not self.calls or not self._enter():
                    return None

    def _initialized(self) -> bool:
        if self._initialize is None:
            return True
        try:
            self._initialize()
            return True
        except BaseException:
            _log("Exception in initializer:")
        return False

    def _break(self) -> None:
        """The initializer has failed: no call is made any more."""
        self.broken = "A goroutine initializer failed, the pool is not usable anymore"
        executor = self._executor()
        if executor is not None:
            executor._broken = True
        call = self._next()
        while call is not None:
            call.refuse(BrokenThreadPool(self.broken))
            call = None
            call = self._next()  # also one that a submit() adds which has not seen `broken`

    def waiting(self) -> list[_Call]:
        """Takes what waits and does not count as begun: nobody else runs it."""
        taken: deque[_Call] = deque()
        with suppress(IndexError):  # workers take from the other end
            while len(self.calls) > self._coming.load():
                taken.appendleft(self.calls.pop())
        return list(taken)

    def in_worker(self) -> bool:
        me = _core.current()
        return me is not None and getattr(me.function, "__self__", None) is self


class Executor(ThreadPoolExecutor):
    """A concurrent.futures.ThreadPoolExecutor over goroutines.

    At most max_workers calls run at once; there are no idle workers.  A call that waits parks its
    goroutine, so max_workers may be in the thousands.  Each call has a copy of the context in which
    it was submitted.  A goroutine runs calls as long as some wait, then ends; `initializer` runs at
    the beginning of each.  ValueError for max_workers < 1, TypeError if `initializer` cannot be
    called.  A call whose goroutine is cancelled ends with GoroutineCancelled.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        super().__init__(max_workers, thread_name_prefix, initializer, initargs)
        initialize = None if initializer is None else lambda: initializer(*initargs)
        self._work = _Work(self, self._max_workers, thread_name_prefix or "Executor", initialize)
        _alive.add(self._work)

    def submit(self, fn: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_R]:
        """Have fn(*args, **kwargs) called in a goroutine; returns its future.

        RuntimeError after shutdown(), or at the end of the process; BrokenThreadPool if the
        initializer has failed.
        """
        with self._shutdown_lock:
            if self._work.broken:
                raise BrokenThreadPool(self._work.broken)
            if self._shutdown:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if _ending:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            future: Future[_R] = Future()
            self._work.add(_Call(future, lambda: fn(*args, **kwargs)))
            return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No more calls.  With `wait` it blocks until those that were submitted have ended;
        `cancel_futures` cancels those that have not begun.
        """
        with self._shutdown_lock:
            self._shutdown = True
        if cancel_futures:  # not under the lock: who is told may call submit()
            for call in self._work.waiting():
                call.future.cancel()
        if wait:
            if self._work.in_worker():
                raise RuntimeError("shutdown(): a call of the executor would wait for its own end")
            self._work.workers.wait()


_alive: weakref.WeakSet[_Work] = weakref.WeakSet()
_ending = False


def _at_exit() -> None:
    """Before the process joins its threads: what was submitted is done, as by threads."""
    global _ending
    _ending = True
    for work in list(_alive):
        work.workers.wait()


def _in_child() -> None:
    for work in list(_alive):
        work.begin()
        work.unlock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)

# Where concurrent.futures.thread has its own: behind that, so before it.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]  # pyright: ignore

# Reprs name the public place, gmprt.Executor, not this file.
Executor.__module__ = "gmprt"
