"""What `threading` sees of a goroutine: an object like a thread's, and the hooks of new threads.

`threading.current_thread()` makes an object of the class `threading._DummyThread` for a thread
that `threading` has not started itself.  Those are dear, and stay for ever (3.11, 3.12).  The one
attribute of the standard library that gmprt replaces is that class, when it becomes active
(csrc/py/activate.c): in a goroutine it makes a light object with the goroutine's name, which goes
when the goroutine ends.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

from gmprt import _core

_threading: Any = threading  # with its private names
_active: dict[int, threading.Thread] = _threading._active

_HANDLE = "_os_thread_handle" if sys.version_info >= (3, 14) else "_handle"

if TYPE_CHECKING:
    _DummyThread = threading.Thread
else:
    _DummyThread = threading._DummyThread


class GoroutineThread(_DummyThread):
    """`threading.current_thread()` in a goroutine: named as it is, a daemon, alive until it ends.

    Everywhere else what `threading` would have made.
    """

    _goroutine: _core.Goroutine[Any] | None = None

    def __init__(self) -> None:
        g = _core.current()
        if g is None or (g.is_thread and not g.done()):
            super().__init__()
            return
        # Nothing of Thread.__init__: no Event, no entry in threading._dangling.
        self._goroutine = g
        self._ident: int | None
        self._ident = ident = threading.get_ident()
        _core.has_thread_object()  # so that forget() is called at its end
        _active[ident] = self

    @property
    def name(self) -> str:
        g = self._goroutine
        return g.name if g is not None else super().name

    @name.setter
    def name(self, name: str) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        g = self._goroutine
        if g is not None:
            g.name = str(name)
        else:
            self._name = str(name)

    @property
    def ident(self) -> int | None:
        return self._ident

    @property
    def native_id(self) -> int | None:
        """The kernel's id of the thread that runs it, for the goroutine itself; else 0."""
        g = self._goroutine
        if g is None:
            return super().native_id
        return threading.get_native_id() if g is _core.current() else 0

    @property
    def daemon(self) -> bool:
        return True if self._goroutine is not None else super().daemon

    @daemon.setter
    def daemon(self, daemonic: bool) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        raise RuntimeError("cannot set daemon status of active thread")

    def is_alive(self) -> bool:
        g = self._goroutine
        return not g.done() if g is not None else super().is_alive()

    def join(self, timeout: float | None = None) -> None:
        """Waits for the goroutine, `timeout` seconds at most; RuntimeError for oneself."""
        g = self._goroutine
        if g is None:
            super().join(timeout)
        elif g is _core.current():
            raise RuntimeError("cannot join current thread")
        else:
            g.join(timeout)

    def __repr__(self) -> str:
        if self._goroutine is None:
            return super().__repr__()
        state = "started" if self.is_alive() else "stopped"
        return f"<{type(self).__name__}({self.name}, {state} daemon {self._ident})>"

    # ---- in a forked child: the goroutine that forked is the main thread, others are no more

    def _ordinary(self, alive: bool) -> Any:
        """Becomes an ordinary thread, in the state in which threading expects one after a fork."""
        name, ident = self.name, self._ident
        thread: Any = self
        del thread._goroutine
        thread.__class__ = threading.Thread
        threading.Thread.__init__(thread, name=name, daemon=True)
        thread._started.set()
        thread._ident = ident
        if sys.version_info >= (3, 13):
            handle = _threading._make_thread_handle(ident)
            if not alive:
                handle._set_done()
            setattr(thread, _HANDLE, handle)
        elif alive:
            thread._set_tstate_lock()
        return thread

    def _reset_internal_locks(self, is_alive: bool) -> None:  # 3.11, 3.12
        thread: Any = super() if self._goroutine is None else self._ordinary(is_alive)
        thread._reset_internal_locks(is_alive)

    def _after_fork(self, new_ident: int | None = None) -> None:  # 3.13
        alive = new_ident is not None
        thread: Any = super() if self._goroutine is None else self._ordinary(alive)
        thread._after_fork(new_ident=new_ident)


GoroutineThread.__name__ = GoroutineThread.__qualname__ = "_DummyThread"
GoroutineThread.__module__ = "threading"


def forget(ident: int) -> None:
    """The goroutine with that ident has ended."""
    _active.pop(ident, None)


def main_here() -> threading.Thread | None:
    """`threading`'s main thread, if that is the calling one."""
    main = threading.main_thread()
    return main if main.ident == threading.get_ident() else None


def main_again(main: threading.Thread) -> None:
    """It is the calling thread, which has been in run().

    Where gevent patches `threading` idents are those of greenlets, and the main thread has that of
    the greenlet that patched.  One in a main goroutine has ended with it; the exit would wait for
    a main thread that is not there.
    """
    ident, old = threading.get_ident(), main.ident
    if old is not None and old != ident and threading.main_thread() is main:
        _active[ident] = _active.pop(old, main)
        thread: Any = main
        thread._ident = ident


def start_hooks() -> None:
    """What threading.Thread does at the start: threading.settrace() and setprofile()."""
    trace: Any = _threading._trace_hook
    profile: Any = _threading._profile_hook
    if trace is not None:
        sys.settrace(trace)
    if profile is not None:
        sys.setprofile(profile)


_core.set_thread_hooks(_threading.__dict__, GoroutineThread, forget, start_hooks)
