// Package leaktest finds goroutines that tests leave behind.
package leaktest

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// Main runs a package's tests and exits, for TestMain. If they pass but leave
// goroutines behind, it prints their stacks and exits with 1. A goroutine that
// is within one of the functions in ignore may stay.
func Main(m *testing.M, ignore ...string) { os.Exit(Run(m, ignore...)) }

// Run is Main for a TestMain that still has something to do: it returns the
// exit code.
func Run(m interface{ Run() int }, ignore ...string) int {
	code := m.Run()
	if code != 0 {
		return code // what failed may well have left something behind
	}
	if left := left(2*time.Second, ignore); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "the tests left %d goroutines behind:\n\n%s\n", len(left), strings.Join(left, "\n\n"))
		return 1
	}
	return 0
}

// belong are functions whose goroutines the runtime and the testing package
// start for themselves and never end.
var belong = []string{
	"os/signal.loop", "os/signal.signal_recv", "runtime.ensureSigM", "runtime.ReadTrace",
	"testing.(*T).Run", "testing.(*T).Parallel", "testing.runFuzzing", "testing.runFuzzTests",
}

// left returns the stacks of the goroutines that are there now and still after
// patience: many are about to end when the test that started them has ended.
func left(patience time.Duration, ignore []string) []string {
	ignore = slices.Concat(belong, ignore)
	deadline := time.Now().Add(patience)
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		left := slices.DeleteFunc(others(), func(stack string) bool {
			return slices.ContainsFunc(ignore, func(function string) bool { return within(stack, function) })
		})
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		time.Sleep(wait)
	}
}

// within tells whether a function is on a stack, in which its calls are the
// lines "function(arguments)". That it started the goroutine ("created by") doesn't count.
func within(stack, function string) bool { return strings.Contains(stack, "\n"+function+"(") }

// others returns the stacks of all goroutines but the one that asks.
func others() []string {
	for size := 1 << 20; ; size *= 2 {
		buf := make([]byte, size)
		if n := runtime.Stack(buf, true); n < size {
			return strings.Split(strings.TrimSpace(string(buf[:n])), "\n\n")[1:] // the first is its own
		}
	}
}
