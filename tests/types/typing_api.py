"""What type checkers must infer for the public API.  Checked by mypy and pyright; never run."""

from __future__ import annotations

import socket
import traceback
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import Any, Literal, assert_type

import gmprt
from gmprt import (
    AfterFunc,
    AtomicInt,
    CancelCloses,
    CancelScope,
    Chan,
    ChanStatistics,
    Cond,
    ContextCancelled,
    CreatedBy,
    DeadlineExceeded,
    ExceptHookArgs,
    Executor,
    Goroutine,
    Group,
    Limiter,
    Mutex,
    Once,
    OnceValue,
    Pool,
    Recv,
    RecvChan,
    RecvView,
    Reservation,
    RLocker,
    RWMutex,
    Select,
    Selected,
    Semaphore,
    Send,
    SendChan,
    SendView,
    Stats,
    Ticker,
    Timer,
    WaitGroup,
    after,
    after_func,
    cancel_closes,
    context,
    fail_after,
    gather,
    go,
    goexit,
    map_,
    move_on_after,
    once_value,
    run,
    run_async,
    select,
    shield,
    stats,
    tick,
)


def length(text: str, *, scale: int = 1) -> int:
    return len(text) * scale


class Animal: ...


class Cat(Animal): ...


def starting() -> None:
    assert_type(go(length, "a", scale=2), Goroutine[int])
    assert_type(run(length, "a"), int)
    assert_type(go(lambda: "x").result(timeout=1), str)
    go(length, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    go(length, "a", size=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(gmprt.options(name="a").go(length, "a", scale=2), Goroutine[int])
    gmprt.options(name=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    gmprt.options().go(length, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    run(length)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def handle(g: Goroutine[int]) -> None:
    assert_type(g.id, int)
    assert_type(g.name, str)
    g.name = "worker"
    assert_type(g.join(timeout=1.5), bool)
    assert_type(g.result(), int)
    assert_type(g.exception(), BaseException | None)
    assert_type(g.cancel("why"), bool)
    assert_type(g.state, Literal["runnable", "running", "syscall", "waiting", "dead"])
    assert_type(g.wait_reason, str)
    assert_type(g.stack(), traceback.StackSummary)
    assert_type(g.created_by, CreatedBy | None)
    assert_type(g.context, Context | None)
    assert_type(g.cpu_time, float)
    assert_type(gmprt.current(), Goroutine[Any] | None)
    # A handle only gives: one of a Cat is one of an Animal.
    cat: Goroutine[Cat] = go(Cat)
    animal: Goroutine[Animal] = cat
    animal.detach()


async def awaiting(g: Goroutine[int]) -> None:
    assert_type(await g.aresult(), int)
    assert_type(await g, int)


async def bridging(ch: Chan[int], out: SendChan[str], words: RecvChan[str]) -> str:
    assert_type(await ch.arecv(), int)
    await ch.asend("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await ch.sender.asend(1)
    await out.asend("a")
    return await words.arecv()


def from_goroutines(ch: Chan[int], out: SendChan[str], words: RecvChan[str]) -> None:
    assert_type(run_async(bridging(ch, out, words)), str)
    with Executor(max_workers=3) as pool:
        assert_type(pool, Executor)
        assert_type(pool.submit(length, "a", scale=2).result(), int)
        pool.submit(length, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    as_base: ThreadPoolExecutor = pool
    as_base.shutdown()


def channels() -> None:
    ch: Chan[int] = Chan(3, name="numbers")
    assert_type(Chan[str](), Chan[str])
    bare = Chan()
    assert_type(bare, Chan[Any])
    assert_type(bare.recv(), Any)
    assert_type(bare.sender, SendView[Any])
    assert_type(ch.receiver, RecvView[int])
    ch.send(1, timeout=0.5)
    ch.send("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(ch.recv(timeout=1), int)
    assert_type(ch.recv_nowait(), int)
    assert_type(ch.statistics(), ChanStatistics)
    assert_type(len(ch) + ch.capacity, int)
    assert_type(ch.recv_ok(), tuple[int, Literal[True]] | tuple[None, Literal[False]])
    value, _ = ch.recv_ok()
    assert_type(value, int | None)
    assert_type(ch.send_many([1, 2], timeout=1), int)
    assert_type(ch.recv_many(5), list[int])
    ch.send_many(["a"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    for item in ch:
        assert_type(item, int)
    with ch as same:
        assert_type(same, Chan[int])


def feed(animals: RecvChan[Animal]) -> None:
    assert_type(animals.recv(), Animal)
    assert_type(animals.recv_many(3), Sequence[Animal])


def directions(ch: Chan[Cat]) -> None:
    receiver: RecvChan[Cat] = ch
    sender: SendChan[Cat] = ch
    assert_type(ch.receiver.recv(), Cat)
    assert_type(receiver.recv(), Cat)
    assert_type(ch.receiver.recv_many(3), list[Cat])
    ch.sender.send_many([Cat()])
    feed(ch)  # covariant: what comes out is an Animal
    receiver = ch.receiver
    sender = ch.sender
    sender.send(Cat())
    # Contravariant: who takes any Animal takes a Cat.
    animals: Chan[Animal] = Chan()
    sender = animals
    wrong: SendChan[Animal] = ch  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    no_recv: RecvChan[Cat] = ch.sender  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    no_send: SendChan[Cat] = ch.receiver  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del wrong, no_recv, no_send


def pipeline(words: RecvChan[str], out: SendChan[int]) -> None:
    for word in words:
        out.send(len(word))
    out.close()


def selecting(a: Chan[int], b: Chan[str], c: RecvChan[bytes], maybe: Chan[int] | None) -> None:
    assert_type(select(a), Selected[int])
    assert_type(select(a, b), Selected[int | str])
    assert_type(select(a, b, c, timeout=1), Selected[int | str | bytes])
    assert_type(select(Recv(a), b.receiver), Selected[int | str])
    assert_type(select(Send(a, 1)), Selected[None])
    assert_type(select(Recv(a), Send(b, "x")), Selected[int | None])
    assert_type(select(maybe, b), Selected[int | str])
    assert_type(select(Recv(maybe), after(1)), Selected[int | float])
    assert_type(select(a, a, a, a, a, b), Selected[int | str])
    chans: list[Chan[int]] = [a]
    assert_type(select(*chans, timeout=0), Selected[int])
    Send(b, 1)  # type: ignore[misc]  # pyright: ignore[reportArgumentType]

    chosen = select(a, b, default=True)
    index, value, ok = chosen
    assert_type(index, int)
    assert_type(value, int | str | None)
    assert_type(ok, bool)
    assert_type(chosen.index, int)
    assert_type(chosen.value, int | str | None)
    assert_type(chosen.get(a), int)
    assert_type(chosen.get(b.receiver), str)


def selecting_again(a: Chan[int], b: Chan[str]) -> None:
    again = Select(a, b)
    assert_type(again, Select[int | str])
    assert_type(again(timeout=1), Selected[int | str])
    assert_type(Select(Recv(a), Send(b, "x"))(), Selected[int | None])


def blocking_for_ever() -> int:
    select()


def leaving() -> int:
    goexit()


def clocks() -> None:
    assert_type(after(1), RecvChan[float])
    assert_type(tick(0.1), RecvChan[float])
    timer, ticker = Timer(1), Ticker(0.5)
    assert_type(timer.c.recv(), float)
    assert_type(timer.stop(), bool)
    assert_type(timer.reset(2), bool)
    assert_type(ticker.c, RecvChan[float])
    later = after_func(1, length, "a", scale=2)
    assert_type(later, AfterFunc)
    assert_type(later.stop(), bool)
    after_func(1, length, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def locks() -> None:
    mutex = Mutex()
    with mutex, Semaphore(3):
        assert_type(mutex.locked(), bool)
    assert_type(mutex.lock(timeout=1), bool)
    group = WaitGroup()
    assert_type(group.go(length, "a"), Goroutine[int])
    assert_type(group.wait(), bool)
    Once().do(clocks)
    rw = RWMutex()
    with rw.lock(), rw.rlock(timeout=1) as held:
        assert_type(bool(held), bool)
    assert_type(rw.try_rlock(), bool)
    assert_type(rw.rlocker(), RLocker)
    assert_type(rw.rlocker().lock(timeout=1), bool)
    for cond in (Cond(mutex), Cond(rw), Cond(rw.rlocker())):
        assert_type(cond.wait(timeout=1), bool)
        assert_type(cond.lock, Mutex | RWMutex | RLocker)
    Cond(group)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    rw.lock(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def counters() -> None:
    counter = AtomicInt(1)
    assert_type(counter.add(1), int)
    assert_type(counter.compare_and_swap(1, 2), bool)
    pool = Pool(Cat)
    assert_type(pool, Pool[Cat])
    assert_type(pool.get(), Cat)
    pool.put(Animal())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    limiter = Limiter(10, burst=5)
    assert_type(limiter.wait(2, timeout=1), bool)
    assert_type(limiter.reserve(), Reservation)
    assert_type(limiter.reserve().delay(), float)


@once_value
def settings() -> dict[str, int]:
    return {}


def helpers() -> None:
    assert_type(settings(), dict[str, int])
    assert_type(settings, OnceValue[dict[str, int]])
    as_function: Callable[[], dict[str, int]] = settings
    assert_type(OnceValue(as_function)(), dict[str, int])
    assert_type(stats(), Stats)
    assert_type(stats().parks, int)
    assert_type(gmprt.gomaxprocs(), int)
    assert_type(gmprt.gomaxprocs(n=2), int)
    assert_type(gmprt.threads(True), bool)
    gmprt.threads(on=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(gmprt.debug.dump_string(), str)
    assert_type(gmprt.debug.goroutines(), list[Goroutine[Any]])
    assert_type(gmprt.native.include_dir(), str)
    assert_type(gmprt.__version__, str)


def scopes() -> int:
    with fail_after(1) as scope:
        assert_type(scope, CancelScope)
    with fail_after(None):
        bound = 1
    fail_after("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with move_on_after(0.5) as moved:
        return bound
    assert_type(moved.expired, bool)  # it may be left in the middle
    general: list[CancelScope] = [moved]
    with shield():
        return len(general)


def groups() -> int:
    with Group(limit=3) as group:
        assert_type(group, Group)
        assert_type(group.go(length, "a", scale=2), Goroutine[int])
        assert_type(group.try_go(length, "a"), Goroutine[int] | Literal[False])
        group.go(length, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        group.go(length, "a", size=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        group.cancel("why")
        bound = group.count
    assert_type(gather(lambda: 1, lambda: "x"), tuple[int, str])
    assert_type(gather(*[lambda: 1]), tuple[int, ...])
    assert_type(map_(length, ["a"], limit=2), Generator[int])
    for n in map_(length, Chan[str]()):
        assert_type(n, int)
    map_(length, [1])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return bound


def closing(connection: socket.socket) -> int:
    with cancel_closes(connection) as same:
        assert_type(same, socket.socket)
        bound = 1
    assert_type(cancel_closes(1, len), CancelCloses[int])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return bound


def contexts(parent: context.Context) -> None:
    with context.with_timeout(1) as ctx, context.with_cancel(parent) as child:
        assert_type(ctx, context.CancelContext)
        assert_type(child.done(), RecvView[Any])
        assert_type(child.err(), ContextCancelled | DeadlineExceeded | None)
        assert_type(ctx.deadline(), float | None)
        assert_type(context.cause(child), BaseException | None)
        child.cancel(ValueError())
        child.cancel("why")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with parent as same, parent.scope():
        assert_type(same, context.Context)
    parent.cancel()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    assert_type(context.with_value("a", 1, parent), context.Context)
    assert_type(context.without_cancel(ctx), context.Context)
    assert_type(context.after_func(ctx, length, "a", scale=2), Callable[[], bool])
    context.after_func(ctx, length, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    select(ctx.done(), context.background().done())


def hooks() -> None:
    def hook(args: ExceptHookArgs) -> None:
        assert_type(args.exc_value, BaseException)
        assert_type(args.goroutine, Goroutine[Any])

    gmprt.excepthook = hook
    gmprt.excepthook = length  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
