"""Goroutines in gdb, as Go's runtime-gdb.py shows them.

    (gdb) source tools/gmprt-gdb.py
    (gdb) info goroutines              one line each: id, state, what it waits for, where it runs
    (gdb) goroutine 17 bt              any gdb command, on the stack of goroutine 17
    (gdb) goroutine all bt 5           ... or on all of them

It reads the runtime's own structs, so the extension must have been built with symbols
(CONTRIBUTING.md).  For the Python frames of a goroutine ask gmprt.debug.dump(), or source CPython's
gdb commands beside this file: `goroutine 17 py-bt` works then.
"""

import gdb

STATES = {0: "idle", 1: "runnable", 2: "running", 3: "syscall", 4: "waiting", 6: "dead"}
KINDS = {0: "native", 1: "python", 2: "thread", 3: "g0"}

# What a switch leaves on the stack (csrc/arch/*/switch.S): register -> offset from the saved stack
# pointer, and what the stack pointer is once they are popped.
SAVED = {
    "i386:x86-64": (
        {"r15": 8, "r14": 16, "r13": 24, "r12": 32, "rbx": 40, "rbp": 48, "pc": 56},
        64,
    ),
    "aarch64": (
        {f"x{n}": 64 + 8 * (n - 19) for n in range(19, 31)} | {"pc": 152},
        176,
    ),
}


def number(value):
    """The integer behind a plain or an _Atomic field."""
    return int(value.cast(gdb.lookup_type("unsigned long")))


def goroutines():
    """Every G that is alive."""
    try:
        table = gdb.parse_and_eval("gtable")
    except gdb.error:
        raise gdb.GdbError("no symbols of gmprt here: is it loaded, and built with them?") from None
    in_slab = (64 << 10) // gdb.lookup_type("G").sizeof  # G_SLAB_SIZE in base/tunables.h
    for i in range(number(table["nslabs"])):
        slab = table["slab"][i].cast(gdb.lookup_type("G").pointer())
        for j in range(in_slab):
            g = slab[j]
            if STATES.get(number(g["status"])) not in ("idle", "dead"):
                yield g


def runs_on(g):
    """The M whose goroutine g is just now, or None."""
    m = g["m"]
    if not m or number(g["status"]) not in (2, 3):
        return None
    return m if number(m["curg"]) == int(g.address) else None


def reason(g):
    if STATES.get(number(g["status"])) != "waiting":
        return ""
    names = gdb.parse_and_eval("waitreason_name::names")
    return names[number(g["reason"])].string()


def thread_of(tid):
    for thread in gdb.selected_inferior().threads():
        if thread.ptid[1] == tid:
            return thread
    return None


class InfoGoroutines(gdb.Command):
    """List the goroutines: id, kind, state, what they wait for, the thread they run on."""

    def __init__(self):
        super().__init__("info goroutines", gdb.COMMAND_STACK, gdb.COMPLETE_NONE)

    def invoke(self, _argument, _from_tty):
        for g in goroutines():
            m = runs_on(g)
            where = f" on M {number(m['id'])}, thread {number(m['tid'])}" if m else ""
            why = reason(g)
            print(
                f"{number(g['goid']):>6} {KINDS[number(g['kind'])]:<6} "
                f"{STATES[number(g['status'])]}{': ' + why if why else ''}{where}"
            )


class Goroutine(gdb.Command):
    """goroutine ID|all COMMAND: run a gdb command on the stack of a goroutine."""

    def __init__(self):
        super().__init__("goroutine", gdb.COMMAND_STACK, gdb.COMPLETE_NONE)

    def invoke(self, argument, _from_tty):
        which, _, command = argument.partition(" ")
        if not command.strip() or not (which == "all" or which.isdigit()):
            raise gdb.GdbError("usage: goroutine ID|all COMMAND")
        found = [g for g in goroutines() if which == "all" or number(g["goid"]) == int(which)]
        if not found:
            raise gdb.GdbError(f"no goroutine {which}")
        for g in found:
            if which == "all":
                print(f"goroutine {number(g['goid'])}:")
            self.on_stack(g, command)

    def on_stack(self, g, command):
        thread, frame = gdb.selected_thread(), gdb.selected_frame()
        m = runs_on(g)
        if m is not None:
            running = thread_of(number(m["tid"]))
            if running is None:
                raise gdb.GdbError("its thread has ended")
            running.switch()
            try:
                gdb.execute(command)
            finally:
                thread.switch()
                frame.select()
            return
        if not g["sp"]:
            print("  it has not run yet, and has no stack")
            return
        self.on_parked(number(g["sp"]), command)

    def on_parked(self, sp, command):
        """Puts the thread's registers where the goroutine's are, and back."""
        offsets, popped = SAVED[gdb.selected_frame().architecture().name()]
        gdb.execute("frame 0", to_string=True)
        word = gdb.lookup_type("unsigned long").pointer()
        values = {r: int(gdb.Value(sp + at).cast(word).dereference()) for r, at in offsets.items()}
        values["sp"] = sp + popped
        before = {r: int(gdb.parse_and_eval(f"(unsigned long)${r}")) for r in values}
        try:
            for register, value in values.items():
                gdb.execute(f"set ${register} = {value:#x}", to_string=True)
            gdb.execute(command)
        finally:
            gdb.execute("frame 0", to_string=True)
            for register, value in before.items():
                gdb.execute(f"set ${register} = {value:#x}", to_string=True)


InfoGoroutines()
Goroutine()
