// Package process runs other programs for tests: it reads what they print,
// signals them, and leaves none behind.
package process

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Patience is how long Await and End wait before they fail the test. Nothing
// that works takes nearly as long; it isn't a measure of anything.
const Patience = 30 * time.Second

// Process is a running program. Its methods are safe for concurrent use.
type Process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	ended chan struct{} // closed once it has been waited for

	mu      sync.Mutex
	lines   []string      // of standard output and standard error
	changed chan struct{} // closed and replaced at each new line
}

// Start starts cmd, whose standard streams it takes over. The process is killed
// at the end of the test, or (on Linux) with the test process, and what it
// printed last is logged when the test has failed.
func Start(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{cmd: cmd, ended: make(chan struct{}), changed: make(chan struct{})}
	dieWithParent(cmd)
	var err error
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		t.Fatalf("start %s: %v", cmd.Path, err)
	}
	go p.read(r) // ends with the process, whose end Cleanup waits for
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("%s\n%s", p, p.tail(30))
		}
	})
	return p
}

func (p *Process) read(r *os.File) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		p.mu.Lock()
		p.lines = append(p.lines, lines.Text())
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
	}
	r.Close()
	p.cmd.Wait()
	close(p.ended)
}

// String returns the program and its arguments.
func (p *Process) String() string {
	return strings.Join(append([]string{filepath.Base(p.cmd.Path)}, p.cmd.Args[1:]...), " ")
}

// Signal sends a signal. It fails the test if the process has ended.
func (p *Process) Signal(t testing.TB, sig os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatalf("signal %v to %s: %v", sig, p, err)
	}
}

// PID returns the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Kill kills the process and waits for its end.
func (p *Process) Kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

// End waits until the process ends by itself and returns its exit code, -1 for
// one ended by a signal.
func (p *Process) End(t testing.TB) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(Patience):
		t.Fatalf("%s hasn't ended", p)
	}
	return p.cmd.ProcessState.ExitCode()
}

// Write sends v as one line of JSON to the process' standard input.
func (p *Process) Write(t testing.TB, v any) {
	t.Helper()
	line, err := json.Marshal(v)
	if err == nil {
		_, err = p.stdin.Write(append(line, '\n'))
	}
	if err != nil {
		t.Fatalf("write to %s: %v", p, err)
	}
}

// since returns the lines from the nth on, and a channel that is closed when
// there are more.
func (p *Process) since(n int) ([]string, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lines[n:len(p.lines):len(p.lines)], p.changed
}

func (p *Process) tail(n int) string {
	lines, _ := p.since(0)
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Printed returns what the process has printed so far: those of its lines that
// are JSON objects, as values of type E.
func Printed[E any](p *Process) []E {
	lines, _ := p.since(0)
	return decode[E](nil, lines)
}

// Await waits until done is content with what the process has printed, as from
// Printed, and returns that. It fails the test when that takes longer than
// Patience or when the process ends before; what says what was waited for.
func Await[E any](t testing.TB, p *Process, what string, done func([]E) bool) []E {
	t.Helper()
	var events []E
	p.await(t, what, func(lines []string) bool {
		events = decode(events, lines)
		return done(events)
	})
	return events
}

// AwaitLine waits for a line that matches a regular expression and returns it.
func (p *Process) AwaitLine(t testing.TB, pattern string) string {
	t.Helper()
	return p.AwaitLines(t, pattern, 1)[0]
}

// AwaitLines waits for n lines that match a regular expression and returns them.
func (p *Process) AwaitLines(t testing.TB, pattern string, n int) []string {
	t.Helper()
	want := regexp.MustCompile(pattern)
	var found []string
	p.await(t, strconv.Quote(pattern), func(lines []string) bool {
		for _, line := range lines {
			if want.MatchString(line) {
				found = append(found, line)
			}
		}
		return len(found) >= n
	})
	return found
}

// await hands over all lines, then those that were added, until done is content.
func (p *Process) await(t testing.TB, what string, done func(added []string) bool) {
	t.Helper()
	late := time.After(Patience)
	for n, last := 0, false; ; {
		lines, more := p.since(n)
		n += len(lines)
		if done(lines) {
			return
		}
		if last {
			t.Fatalf("%s: ended, waited in vain for %s", p, what)
		}
		select {
		case <-more:
		case <-p.ended:
			last = true // it has printed all it will, have one more look
		case <-late:
			t.Fatalf("%s: waited in vain for %s", p, what)
		}
	}
}

func decode[E any](events []E, lines []string) []E {
	for _, line := range lines {
		var e E
		if strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), &e) == nil {
			events = append(events, e)
		}
	}
	return events
}
