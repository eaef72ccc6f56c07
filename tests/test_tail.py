"""The end of a goroutine, and other places where code of the program's runs unexpectedly.

Whatever a goroutine may call it may call there: see tails.py for the functions and the places.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support import run_child
from tails import PLACES

import gmprt

_PROGRAM = str(Path(__file__).with_name("tails.py"))
_PATH = {"PYTHONPATH": str(Path(gmprt.__file__).parents[1])}


@pytest.mark.parametrize("place", [*PLACES, "atexit", "late_atexit", "shutdown"])
def test_everything_can_be_called(place: str) -> None:
    done = run_child(args=[_PROGRAM, place], env=_PATH, timeout=120)
    assert done.stdout == "ok\n", done.stderr


def test_what_destructors_make_anew_for_ever() -> None:
    """It is lost, but the next goroutine does not get it."""
    done = run_child("""
        import contextvars, sys, threading, weakref
        import gmprt

        local = threading.local()
        variable = contextvars.ContextVar("variable")
        references = []

        class Again:
            def __del__(self):
                put()

            def __call__(self, *_):
                pass

        putting = False

        def put():
            global putting
            if putting:  # what is replaced ends here
                return
            putting = True
            local.held = Again()
            variable.set(Again())
            sys.set_asyncgen_hooks(Again(), None)
            sys.setprofile(Again())
            threading.current_thread().held = Again()
            references.append(weakref.ref(gmprt.current(), lambda _: put()))
            putting = False

        def look():
            return vars(local), variable.get(None), sys.get_asyncgen_hooks()[0], sys.getprofile()

        def main():
            before = set(threading._active)
            gmprt.go(put)
            while gmprt.num_goroutine() > 1:
                gmprt.sleep(0.001)
            for g in [gmprt.go(look) for _ in range(5)]:
                print(g.result())
            idents = [gmprt.go(threading.get_ident).result() for _ in range(5)]
            print(set(idents) & set(threading._active))

        gmprt.run(main)
        """)
    assert done.stdout == "({}, None, None, None)\n" * 5 + "set()\n", done.stderr


def test_a_result_that_nobody_can_ask_for() -> None:
    """Its destructor finds the goroutine, which has no result any more."""
    done = run_child("""
        import gmprt

        found = []

        class Result:
            def __del__(self):
                found.append(gmprt.current())

        def main():
            gmprt.go(Result)
            while not found:
                gmprt.sleep(0.001)
            (g,) = found
            assert g.done() and g.join() and g.state == "dead"
            for ask in g.result, g.exception:
                try:
                    ask()
                except RuntimeError as error:
                    print(error)

        gmprt.run(main)
        """)
    assert done.stdout.count("the result has been dropped") == 2, done.stderr


def test_garbage_that_asks_for_a_result() -> None:
    """The collector has cleared the handle before other garbage uses it."""
    run_child("""
        import gc, gmprt

        def main():
            for _ in range(100):
                g = gmprt.go(dict)
                d = g.result()
                d["handle"] = g  # a cycle
                d["iter"] = map(lambda g: g.result(), iter([g]))
                del g, d
            gc.collect()

        gmprt.run(main)
        """)


def test_joining_means_the_very_end() -> None:
    """Destructors of the arguments run before done(): a join in between waits."""
    done = run_child("""
        import gmprt

        entered, leave = gmprt.Chan(), gmprt.Chan()

        class Slow:
            def __del__(self):
                entered.send(None)
                leave.recv()

        def main():
            g = gmprt.go(lambda _: 5, Slow())
            entered.recv()
            print(g.done(), g.join(timeout=0.01))
            leave.close()
            print(g.result(), g.done())

        gmprt.run(main)
        """)
    assert done.stdout == "False False\n5 True\n", done.stderr


@pytest.mark.parametrize("kept", [False, True])
def test_forking_in_a_callback(kept: bool) -> None:
    """The child goes on where it forked, and ends with its goroutine, atexit functions and all."""
    done = run_child(f"""
        import atexit, os, gmprt

        def fork(_):
            status.append(os.fork())

        def main():
            g = gmprt.go(int)
            g.add_done_callback(fork)
            if not {kept}:
                del g
            while not status:
                gmprt.sleep(0.001)
            atexit.unregister(in_child)
            print(os.waitstatus_to_exitcode(os.waitpid(status[0], 0)[1]))

        def in_child():
            print("the end of the child", status, flush=True)

        status = []
        atexit.register(in_child)
        gmprt.run(main)
        """)
    assert done.stdout == "the end of the child [0]\n0\n", done.stderr


def test_the_end_of_a_child_that_is_a_goroutine() -> None:
    """It has started nothing. Still no hook is called when the interpreter and its state go."""
    done = run_child("""
        import atexit, os

        def last():  # after gmprt's own
            if pid == 0:
                print(_core.features()["interposition"] == "on", flush=True)

        atexit.register(last)
        import gmprt
        from gmprt import _core

        def fork():
            global pid
            assert _core.features()["interposition"] == "on"
            pid = os.fork()

        gmprt.run(lambda: gmprt.go(fork).result())
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """)
    assert done.stdout == "False\n0\n", done.stderr


def test_many_awaited_goroutines_end_while_the_loop_is_busy() -> None:
    """More of them than wake-ups fit into the loop's socket."""
    done = run_child("""
        import asyncio, time, gmprt

        async def busy():
            gs = [gmprt.go(gmprt.sleep, 0.001) for _ in range(2000)]
            waits = [asyncio.ensure_future(g.aresult()) for g in gs]
            await asyncio.sleep(0)
            del gs
            while gmprt.num_goroutine() > 1:
                gmprt.sleep(0.01)  # the loop does not read its socket
            await asyncio.gather(*waits)
            print("ok")

        gmprt.run(asyncio.run, busy())
        """)
    assert done.stdout == "ok\n", done.stderr
