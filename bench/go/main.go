// The cases of bench/catalog.py in Go, measured as bench/common.py measures them.
//
//	peer -list            names of the cases, and the version of Go
//	peer [-quick] CASE    one case; its figures as JSON
//	-client PATH          the load of the echo case
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	batch    = 1000
	capacity = 128
	channels = 4
	crowd    = 8
	limit    = time.Second
	nap      = 500 * time.Millisecond
	warmUp   = 50 * time.Millisecond
	trees    = 7
	margin   = 1.1
)

// As in bench/echo.py.
const (
	connections = 1000
	chunk       = 1024
	bytes       = 64
)

type figures map[string]float64

// scale mirrors Scale in bench/common.py.
type scale struct {
	budget    float64
	repeats   int
	parked    int
	idle      time.Duration
	switchers int
	block     time.Duration
	echo      float64
}

var (
	full  = scale{0.5, 3, 100_000, 3 * time.Second, 1000, time.Second, 3}
	quick = scale{0.04, 3, 10_000, 1500 * time.Millisecond, 1000, time.Second, 1}
)

// metered finds a run of about the budget, as Meter does, and gives the best ns per operation.
func metered(s scale, per int, run func(n int)) figures {
	seconds := 0.0
	timed := func(n int) {
		start := time.Now()
		run(n)
		seconds = time.Since(start).Seconds()
	}
	scaled := func(n int, want float64) int {
		return max(1, int(math.Ceil(float64(n)*want/max(seconds, 1e-7))))
	}
	n := 1
	timed(n)
	for seconds < s.budget/4 {
		n = min(n*16, scaled(n, s.budget/2))
		timed(n)
	}
	n = scaled(n, s.budget*margin)
	runs := make([]float64, s.repeats)
	for i := range runs {
		timed(n)
		runs[i] = seconds / float64(n)
	}
	return figures{"value": slices.Min(runs) / float64(per) * 1e9}
}

func gosched(s scale) figures {
	return metered(s, 2, func(n int) {
		var wg sync.WaitGroup
		for range 2 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for range n {
					runtime.Gosched()
				}
			}()
		}
		wg.Wait()
	})
}

func pingpong(s scale) figures {
	return metered(s, 1, func(n int) {
		ping, pong := make(chan int), make(chan int)
		go func() {
			for v := range ping {
				pong <- v
			}
		}()
		for i := range n {
			ping <- i
			<-pong
		}
		close(ping)
	})
}

func buffered(s scale) figures {
	return metered(s, 1, func(n int) {
		items := make(chan int, capacity)
		go func() {
			for i := range n {
				items <- i
			}
		}()
		for range n {
			<-items
		}
	})
}

func spawnBatches(s scale) figures {
	return metered(s, batch, func(n int) {
		var wg sync.WaitGroup
		for range n {
			wg.Add(batch)
			for range batch {
				go wg.Done()
			}
			wg.Wait()
		}
	})
}

func spawnOne(s scale) figures {
	return metered(s, 1, func(n int) {
		var wg sync.WaitGroup
		for range n {
			wg.Add(1)
			go wg.Done()
			wg.Wait()
		}
	})
}

func selectReady(s scale) figures {
	var c [channels]chan int
	for i := range c {
		c[i] = make(chan int, 1)
	}
	return metered(s, channels, func(n int) {
		for range n {
			for i := range c {
				c[i] <- 1
				select {
				case <-c[0]:
				case <-c[1]:
				case <-c[2]:
				case <-c[3]:
				}
			}
		}
	})
}

func selectTimeout(s scale) figures {
	var c [channels]chan int
	for i := range c {
		c[i] = make(chan int, 1)
	}
	return metered(s, channels, func(n int) {
		for range n {
			for i := range c {
				c[i] <- 1
				select {
				case <-c[0]:
				case <-c[1]:
				case <-c[2]:
				case <-c[3]:
				case <-time.After(limit):
				}
			}
		}
	})
}

func failAfter(s scale) figures {
	items := make(chan int, 1)
	return metered(s, 1, func(n int) {
		for range n {
			items <- 1
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			select {
			case <-items:
			case <-ctx.Done():
			}
			cancel()
		}
	})
}

func freeMutex(s scale) figures {
	var lock sync.Mutex
	return metered(s, 1, func(n int) {
		for range n {
			lock.Lock()
			lock.Unlock()
		}
	})
}

func contendedMutex(s scale) figures {
	return metered(s, crowd, func(n int) {
		var lock sync.Mutex
		var wg sync.WaitGroup
		for range crowd {
			wg.Go(func() {
				for range n {
					lock.Lock()
					runtime.Gosched()
					lock.Unlock()
				}
			})
		}
		wg.Wait()
	})
}

func selectReply(s scale) figures {
	var c [channels]chan int
	for i := range c {
		c[i] = make(chan int)
	}
	reply := make(chan int)
	return metered(s, 1, func(n int) {
		go func() {
			for range n {
				var v int
				select {
				case v = <-c[0]:
				case v = <-c[1]:
				case v = <-c[2]:
				case v = <-c[3]:
				}
				reply <- v
			}
		}()
		for i := range n {
			c[i%channels] <- i
			<-reply
		}
	})
}

func memory(s scale) figures {
	items := make(chan int)
	var started, ended sync.WaitGroup
	before := memoryBytes()
	started.Add(s.parked)
	ended.Add(s.parked)
	for range s.parked {
		go func() {
			started.Done()
			<-items
			ended.Done()
		}()
	}
	started.Wait()
	hot := memoryBytes()
	time.Sleep(s.idle)
	idle := memoryBytes()
	close(items)
	ended.Wait()
	each := func(after int) float64 { return float64(after-before) / float64(s.parked) }
	return figures{"hot": each(hot), "idle": each(idle)}
}

// memoryBytes is resident memory and page tables, after a collection as in the Python cases.
func memoryBytes() int {
	runtime.GC()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		panic(err)
	}
	total := 0
	for _, line := range strings.Split(string(status), "\n") {
		if strings.HasPrefix(line, "VmRSS:") || strings.HasPrefix(line, "VmPTE:") {
			kb, err := strconv.Atoi(strings.Fields(line)[1])
			if err != nil {
				panic(err)
			}
			total += kb * 1024
		}
	}
	return total
}

func fib(n int) int {
	if n < 2 {
		return n
	}
	return fib(n-1) + fib(n-2)
}

func forkJoin(n int) int {
	if n < 16 {
		return fib(n)
	}
	var left int
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		left = forkJoin(n - 1)
		wg.Done()
	}()
	right := forkJoin(n - 2)
	wg.Wait()
	return left + right
}

func tree(scale) figures {
	runs := make([]float64, 0, trees)
	for i := range trees + 1 {
		start := time.Now()
		if forkJoin(36) != 14930352 {
			panic("wrong sum")
		}
		if i > 0 { // the first one warms up
			runs = append(runs, time.Since(start).Seconds()*1e3)
		}
	}
	return figures{"value": slices.Min(runs)}
}

// delays runs block beside goroutines that take turns, and returns the delays between their turns.
func delays(s scale, block func(time.Duration)) figures {
	var begun, stop atomic.Bool
	var switchers, blocker sync.WaitGroup
	gaps := make([][]int64, s.switchers)
	for i := range gaps {
		switchers.Add(1)
		go func() {
			defer switchers.Done()
			last := time.Now()
			for !stop.Load() {
				runtime.Gosched()
				now := time.Now()
				if begun.Load() {
					gaps[i] = append(gaps[i], int64(now.Sub(last)))
				}
				last = now
			}
		}()
	}
	time.Sleep(warmUp)
	begun.Store(true)
	blocker.Add(1)
	go func() {
		block(s.block)
		blocker.Done()
	}()
	blocker.Wait()
	stop.Store(true)
	switchers.Wait()
	all := slices.Concat(gaps...)
	slices.Sort(all)
	rank := func(share float64) float64 {
		return float64(all[max(0, int(math.Ceil(share*float64(len(all))))-1)]) / 1e6
	}
	return figures{"p50": rank(0.50), "p99": rank(0.99), "p99.9": rank(0.999), "max": rank(1)}
}

// sleepInC blocks the thread in a system call that the scheduler knows only as "some call".
func sleepInC(d time.Duration) {
	left := syscall.NsecToTimespec(int64(d))
	for syscall.Nanosleep(&left, &left) == syscall.EINTR {
	}
}

func sleepers(count int) figures {
	start := time.Now()
	var wg sync.WaitGroup
	wg.Add(count)
	for range count {
		go func() {
			time.Sleep(nap)
			wg.Done()
		}()
	}
	wg.Wait()
	return figures{"value": time.Since(start).Seconds()}
}

// handover passes locks that were taken by the other goroutine, which sync.Mutex allows.
func handover(s scale) figures {
	return metered(s, 1, func(n int) {
		var there, back sync.Mutex
		there.Lock()
		back.Lock()
		go func() {
			for range n {
				there.Lock()
				back.Unlock()
			}
		}()
		for range n {
			there.Unlock()
			back.Lock()
		}
	})
}

var client string

// echo serves the client of bench/echo.py, one goroutine for each connection.
func echo(s scale) figures {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(connection)
		}
	}()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	load := exec.Command(client, port, fmt.Sprint(connections), fmt.Sprint(bytes), fmt.Sprint(s.echo/4), fmt.Sprint(s.echo))
	load.Stderr = os.Stderr
	out, err := load.Output()
	if err != nil {
		panic(err)
	}
	var answer figures
	if err := json.Unmarshal(out, &answer); err != nil {
		panic(err)
	}
	return answer
}

func serve(connection net.Conn) {
	defer connection.Close()
	buffer := make([]byte, chunk)
	for {
		n, err := connection.Read(buffer)
		if err != nil {
			return
		}
		if _, err := connection.Write(buffer[:n]); err != nil {
			return
		}
	}
}

var cases = map[string]func(scale) figures{
	"gosched":         gosched,
	"pingpong":        pingpong,
	"buffered":        buffered,
	"spawn":           spawnBatches,
	"select":          selectReady,
	"select_timeout":  selectTimeout,
	"fail_after":      failAfter,
	"group":           spawnBatches,
	"mutex":           freeMutex,
	"mutex_contended": contendedMutex,
	"memory":          memory,
	"native_yield":    gosched,
	"native_pingpong": pingpong,
	"native_spawn":    spawnOne,
	"native_buffered": buffered,
	"native_select":   selectReply,
	"native_tree":     tree,
	"handoff":         func(s scale) figures { return delays(s, time.Sleep) },
	"handoff_c":       func(s scale) figures { return delays(s, sleepInC) },
	"handoff_control": func(s scale) figures { return delays(s, time.Sleep) },
	"sleepers_10k":    func(scale) figures { return sleepers(10_000) },
	"sleepers_100k":   func(scale) figures { return sleepers(100_000) },
	"lock_handover":   handover,
	"echo":            echo,

	"sleepers_10k_unmodified": func(scale) figures { return sleepers(10_000) },
}

func main() {
	list := flag.Bool("list", false, "print the version and the names of the cases")
	short := flag.Bool("quick", false, "shorter runs")
	flag.StringVar(&client, "client", "", "the load of the echo case")
	flag.Parse()
	if client == "" {
		delete(cases, "echo")
	}
	var answer any
	if *list {
		names := make([]string, 0, len(cases))
		for name := range cases {
			names = append(names, name)
		}
		answer = map[string]any{"version": runtime.Version(), "cases": names}
	} else {
		run, found := cases[flag.Arg(0)]
		if !found {
			fmt.Fprintf(os.Stderr, "no case %q\n", flag.Arg(0))
			os.Exit(2)
		}
		size := full
		if *short {
			size = quick
		}
		answer = run(size)
	}
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
		panic(err)
	}
}
