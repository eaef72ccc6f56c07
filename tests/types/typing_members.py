"""What type checkers must infer for the public names of which typing_api.py does not speak.

Checked by mypy and pyright; never run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FrameType, TracebackType
from typing import Any, assert_type

import gmprt
from gmprt import (
    AtomicInt,
    Cancelled,
    Chan,
    ChannelClosed,
    ChanStatistics,
    Cond,
    CreatedBy,
    DeadlineExceeded,
    Deadlock,
    EndOfChannel,
    Error,
    ExceptHookArgs,
    Goroutine,
    GoroutineCancelled,
    Group,
    Limiter,
    Mutex,
    Options,
    RecvChan,
    RecvView,
    Reservation,
    RLocker,
    RuntimeNotRunning,
    RWMutex,
    Selected,
    Semaphore,
    SendChan,
    SendView,
    StackOverflow,
    Timeout,
    TooManyThreads,
    WaitGroup,
    WouldBlock,
    context,
    go,
    native,
    select,
)


def handles(g: Goroutine[int]) -> None:
    assert_type(g.done(), bool)
    assert_type(g.cancelled(), bool)
    assert_type(g.frame(), FrameType | None)
    assert_type(g.creation(), tuple[CodeType, int] | None)
    assert_type(g.since, float)
    assert_type(g.parent_id, int)
    assert_type(g.run_id, int)
    assert_type(g.ident, int)
    assert_type(g.is_main, bool)
    assert_type(g.is_thread, bool)
    assert_type(g.detached, bool)
    assert_type(g.locked_to_thread, bool)
    assert_type(g.reason, object)
    assert_type(g.function, Callable[..., Any] | None)
    g.add_done_callback(lambda same: assert_type(same.id, int))
    g.id = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def starting(named: Options) -> None:
    assert_type(gmprt.options(detach=True), Options)
    assert_type(named.go(int, "1"), Goroutine[int])
    assert_type(go(dict[str, int]), Goroutine[dict[str, int]])
    # A callable of any kind, with its own parameters.
    part: Callable[[int, str], bytes] = lambda n, text: text.encode() * n  # noqa: E731
    assert_type(go(part, 1, "a"), Goroutine[bytes])
    go(part, 1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    gmprt.gosched()
    gmprt.sleep(0.5)
    gmprt.sleep("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(gmprt.num_goroutine(), int)
    gmprt.lock_os_thread()
    gmprt.unlock_os_thread()
    assert_type(gmprt.set_max_stack(1 << 20), int)
    assert_type(gmprt.set_max_threads(100), int)


def created(where: CreatedBy, now: ChanStatistics) -> None:
    assert_type((where.function, where.filename), tuple[str, str])
    assert_type((where.lineno, where.goroutine_id), tuple[int, int])
    assert_type((now.length, now.capacity, now.closed), tuple[int, int, bool])
    assert_type((now.waiting_senders, now.waiting_receivers), tuple[int, int])
    now.length = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def channels(ch: Chan[int], send: SendView[int], recv: RecvView[int]) -> None:
    by_annotation: Chan[str] = Chan()
    assert_type(by_annotation, Chan[str])
    ch.send_nowait(1)
    assert_type(ch.waiting(), tuple[int, int])
    assert_type((ch.closed, ch.name), tuple[bool, str | None])
    send.send_nowait(1)
    send.send_nowait("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type((send.closed, send.capacity, len(send)), tuple[bool, int, int])
    assert_type((recv.closed, recv.capacity, len(recv)), tuple[bool, int, int])
    assert_type([n for n in recv], list[int])  # noqa: C416


def protocols(send: SendChan[int], recv: RecvChan[int]) -> None:
    send.send_nowait(1)
    assert_type((send.closed, recv.closed), tuple[bool, bool])
    assert_type(next(iter(recv)), int)


def selected(chosen: Selected[int | str], a: Chan[int]) -> None:
    assert_type(chosen.ok, bool)
    assert_type(chosen.channel, Chan[Any] | None)
    # One that is known to have come is no union with None any more.
    if chosen.value is not None:
        assert_type(chosen.value, int | str)
    match select(a, default=True):
        case 0, value, True:
            assert_type(value, int | None)
        case _:
            pass


def locks(mutex: Mutex, rw: RWMutex, reader: RLocker, units: Semaphore, cond: Cond) -> None:
    assert_type((mutex.try_lock(), rw.try_lock(), reader.try_lock()), tuple[bool, bool, bool])
    mutex.unlock()
    rw.unlock()
    rw.runlock()
    reader.unlock()
    assert_type((rw.locked, rw.readers), tuple[bool, int])
    assert_type((units.acquire(timeout=1), units.try_acquire()), tuple[bool, bool])
    units.release(2)
    assert_type(units.value, int)
    cond.signal()
    cond.broadcast()
    with cond as same:
        assert_type(same, Cond)


def counting(n: AtomicInt, all_done: WaitGroup, group: Group) -> None:
    assert_type((n.load(), n.swap(2)), tuple[int, int])
    n.store(3)
    n.store(1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    all_done.add(2)
    all_done.done()
    assert_type((all_done.count, group.count), tuple[int, int])


def limits(limiter: Limiter, later: Reservation) -> None:
    assert_type(limiter.allow(2, now=1.5), bool)
    assert_type(limiter.tokens(), float)
    assert_type((limiter.rate, limiter.burst), tuple[float, int])
    limiter.set_rate(5.5)
    limiter.set_burst(5)
    assert_type(later.ok, bool)
    later.cancel()


def errors() -> None:
    try:
        gmprt.sleep(1)
    except (EndOfChannel, WouldBlock, RuntimeNotRunning, TooManyThreads, StackOverflow) as error:
        as_error: Error = error
        del as_error
    except (Timeout, ChannelClosed) as error:
        assert_type(error.sent, int)
    except (DeadlineExceeded, TimeoutError) as error:
        os_error: OSError = error
        del os_error
    except GoroutineCancelled as error:
        assert_type(error.reason, object)
    except Deadlock as error:
        assert_type((error.message, error.dump), tuple[str, str])
    except Cancelled as error:
        assert_type((error.sent, error.reason), tuple[int, object])
        no_exception: Exception = error  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        del no_exception


def contexts() -> None:
    assert_type(context.with_cancel_cause(), context.CancelContext)
    assert_type(context.with_deadline(1.5), context.CancelContext)
    with context.with_timeout(1, parent=context.background()) as ctx:
        assert_type(ctx.value("a"), Any)


def seeing(args: ExceptHookArgs) -> None:
    assert_type(args.exc_type, type[BaseException])
    assert_type(args.exc_traceback, TracebackType | None)
    gmprt.debug.dump(sys.stdout)
    assert_type(gmprt.debug.install_sigquit(), bool)


def natives() -> None:
    numbers = native.chan("int64_t", capacity=8)
    assert_type(numbers, native.NativeChan)
    numbers.send_nowait(1)
    assert_type((numbers.closed, numbers.capacity, len(numbers)), tuple[bool, int, int])
    assert_type(numbers.send_from(bytes(8), timeout=1), int)
    assert_type(numbers.recv_into(bytearray(8)), int)
    assert_type(native.api_pointer(), int)
