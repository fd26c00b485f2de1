package balancer_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// A fleet is what the fake dial of these tests reaches: backends NAME.test:80
// that behave as told, over pipes, since a test bubble can't wait for a network.
type fleet struct {
	mu     sync.Mutex
	does   map[string]string // by name; "" is well, else: see dial; busy answers requests only
	checks map[string][]time.Time
}

func (f *fleet) set(does string, names ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range names {
		f.does[name] = does
	}
}

// checked returns how many checks name had since the last call.
func (f *fleet) checked(name string) []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { f.checks[name] = nil }()
	return f.checks[name]
}

func (f *fleet) dial(_ context.Context, _, addr string) (net.Conn, error) {
	name := strings.TrimSuffix(addr, ".test:80")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.checks[name] = append(f.checks[name], time.Now())
	does := f.does[name]
	switch does {
	case "refused":
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	case "exhausted":
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("socket", syscall.EMFILE)}
	case "unreachable":
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}
	case "unresolved":
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "server misbehaving", Name: addr}}
	}
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		req, err := http.ReadRequest(bufio.NewReader(far))
		switch {
		case err != nil, does == "closes":
		case does == "hung", does == "busy" && req.Method == "HEAD":
			io.Copy(io.Discard, far)
		case does == "sick":
			io.WriteString(far, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
		case does == "busy", req.Method == "HEAD" && req.URL.Path == "/health":
			io.WriteString(far, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
		}
	}()
	return near, nil
}

// A log is what OnChange told.
type log []string

// logging is held to use a log: nothing else orders a test's goroutine and a timer's.
var logging sync.Mutex

func (l *log) note(c balancer.Change) {
	s := fmt.Sprintf("%s %v-%v", c.Backend.ID(), c.From, c.To)
	if c.Lost {
		s += " lost"
	}
	logging.Lock()
	defer logging.Unlock()
	*l = append(*l, s)
}

func (l *log) want(t *testing.T, lines ...string) {
	t.Helper()
	logging.Lock()
	defer logging.Unlock()
	if !slices.Equal(*l, lines) {
		t.Errorf("told %q, want %q", *l, lines)
	}
	*l = nil
}

// run runs a checked pool of these backends in a bubble, with an interval of 1 s
// and a timeout of 500 ms.
func run(t *testing.T, opts balancer.Options, ids []string, f func(*testing.T, *balancer.Pool, *fleet, *log)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fl := &fleet{does: map[string]string{}, checks: map[string][]time.Time{}}
		if opts.Check == nil {
			opts.Check = &balancer.Check{}
		}
		opts.Check.Path = "/health"
		opts.Transport = &balancer.Transport{Dial: fl.dial}
		p := newPool(t, &opts, ids...)
		l := &log{}
		p.OnChange(l.note)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		time.Sleep(2 * time.Second)
		f(t, p, fl, l)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// sleep waits, and for what happens at the end of it.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestHangIsFoundInTime(t *testing.T) {
	run(t, balancer.Options{}, []string{"a", "b"}, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
		a := p.Get("a")
		lost := a.Lost()
		f.set("hung", "a")
		select {
		case <-lost:
		case <-time.After(2*time.Second + time.Millisecond): // interval + 2 x timeout
			t.Fatal("not lost in time")
		}
		synctest.Wait()
		l.want(t, "a up-down lost")
		if a.Health() != balancer.Dead {
			t.Errorf("health %v, want dead", a.Health())
		}

		f.set("", "a")
		f.checked("a")
		for a.State() == balancer.Down {
			sleep(10 * time.Millisecond)
		}
		if n := len(f.checked("a")); n < 2 {
			t.Errorf("up again after %d checks, want 2", n)
		}
		l.want(t, "a down-up")
		if closed(a.Lost()) {
			t.Error("Lost is still closed")
		}
	})
}

// A backend that answers on the connections that it has, and not on new ones, is out of
// descriptors, or busy, or its health page hangs. It gets no new clients and keeps its own.
func TestUnansweredCheckOfALivingBackend(t *testing.T) {
	run(t, balancer.Options{}, []string{"a", "b"}, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
		a := p.Get("a")
		tr := &balancer.Transport{Dial: f.dial}
		ask := func() {
			ctx := balancer.WithBackend(t.Context(), a)
			req, _ := http.NewRequestWithContext(ctx, "GET", "http://a.test/", nil)
			res, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
		f.set("busy", "a")
		start := time.Now()
		for a.State() == balancer.Up {
			ask()
			sleep(100 * time.Millisecond)
		}
		if d := time.Since(start); d > 2200*time.Millisecond { // interval + 2 x timeout, and the step of this test
			t.Errorf("it took new clients for %v", d)
		}
		l.want(t, "a up-draining")
		if a.Health() != balancer.Sick || !a.Keeps("key") || closed(a.Lost()) {
			t.Errorf("health %v, keeps %v, lost %v", a.Health(), a.Keeps("key"), closed(a.Lost()))
		}
		if s := a.Status(); !strings.Contains(s.Why, "goes on serving") {
			t.Errorf("why %q", s.Why)
		}
		for range 600 { // it is never taken to be dead
			ask()
			sleep(100 * time.Millisecond)
		}
		l.want(t)

		f.set("", "a")
		sleep(3 * time.Second)
		l.want(t, "a draining-up")

		f.set("busy", "a")
		for range 40 {
			ask()
			sleep(100 * time.Millisecond)
		}
		l.want(t, "a up-draining")
		f.set("hung", "a") // and now it answers nobody
		sleep(2 * time.Second)
		l.want(t, "a draining-down lost")
		f.set("", "a")
		sleep(3 * time.Second)
		l.want(t, "a down-up")
		tr.CloseIdleConnections()
		synctest.Wait()
	})
}

// A backend that pauses for the time of one check, as for a garbage collection, stays.
func TestPauseOfACheckIsForgiven(t *testing.T) {
	run(t, balancer.Options{}, []string{"a", "b"}, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
		for range 20 {
			f.checked("a")
			f.set("hung", "a")
			for len(f.checked("a")) == 0 {
				sleep(time.Millisecond)
			}
			// The check waits for 500 ms, and is repeated at that very moment.
			sleep(498 * time.Millisecond)
			f.set("", "a")
			sleep(3 * time.Second)
		}
		l.want(t)
	})
}

func TestSickBackendKeepsItsClients(t *testing.T) {
	run(t, balancer.Options{}, []string{"a", "b"}, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
		a, b := p.Get("a"), p.Get("b")
		f.set("sick", "a")
		sleep(2 * time.Second)
		l.want(t, "a up-draining")
		if a.Health() != balancer.Sick || !a.Keeps("key") || closed(a.Lost()) {
			t.Errorf("health %v, keeps %v, lost %v", a.Health(), a.Keeps("key"), closed(a.Lost()))
		}
		if got, err := p.Pick(nil, "", ""); got != b {
			t.Errorf("a new client goes to %v, %v, want b", got, err)
		}

		// The page is broken everywhere, and the operator drains one of them.
		f.set("sick", "b")
		must(t, p.Add(newBackend(t, "c", 1)))
		f.set("sick", "c")
		sleep(2 * time.Second)
		must(t, p.Drain("c", 0))
		for _, key := range []string{"", "key", "other key", "third key"} {
			if got, err := p.Pick(nil, "", key); err != nil || got == p.Get("c") {
				t.Errorf("a new client with key %q goes to %v, %v, want a sick backend", key, got, err)
			}
		}

		f.set("hung", "a")
		sleep(2 * time.Second)
		if a.State() != balancer.Down || !closed(a.Lost()) {
			t.Errorf("sick and then dead: %v, lost %v", a.State(), closed(a.Lost()))
		}
		f.set("sick", "a")
		sleep(3 * time.Second)
		if a.State() != balancer.Draining || a.Health() != balancer.Sick {
			t.Errorf("dead and then sick: %v, %v", a.State(), a.Health())
		}
	})
}

func TestOneFailureIsForgiven(t *testing.T) {
	run(t, balancer.Options{}, []string{"a", "b"}, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
		f.checked("a")
		f.set("hung", "a")
		for len(f.checked("a")) == 0 {
			sleep(10 * time.Millisecond)
		}
		f.set("", "a")
		sleep(10 * time.Second)
		l.want(t)
	})
}

func TestOwnExhaustionIsNoVerdict(t *testing.T) {
	run(t, balancer.Options{}, []string{"a", "b"}, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
		f.checked("a")
		f.set("exhausted", "a", "b")
		for range 100 {
			p.Report(p.Get("a"), os.NewSyscallError("socket", syscall.EMFILE))
			sleep(100 * time.Millisecond)
		}
		l.want(t)
		if n := len(f.checked("a")); n < 9 || n > 12 {
			t.Errorf("%d checks in 10 s", n)
		}
	})
}

func TestReportOfRefusedDial(t *testing.T) {
	run(t, balancer.Options{}, []string{"a", "b"}, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
		a := p.Get("a")
		refused := fmt.Errorf("request: %w", syscall.ECONNREFUSED)
		until := func() { // just behind a check, so that the next is nearly a second away
			f.checked("a")
			for len(f.checked("a")) == 0 {
				sleep(10 * time.Millisecond)
			}
			sleep(200 * time.Millisecond)
		}
		until()
		p.Report(a, refused)
		synctest.Wait()
		l.want(t) // the check found it well

		until()
		f.set("refused", "a")
		p.Report(a, refused)
		synctest.Wait()
		l.want(t, "a up-down lost")
		if n := len(f.checked("a")); n != 1 {
			t.Errorf("%d checks, want 1 to be enough", n)
		}

		for range 500 {
			p.Report(a, refused)
			sleep(time.Millisecond)
		}
		if n := len(f.checked("a")); n < 4 || n > 6 {
			t.Errorf("reports over 500 ms made %d checks, want one each 100 ms", n)
		}
	})
}

func TestReportOfResetIsOneSuspicion(t *testing.T) {
	run(t, balancer.Options{}, []string{"a", "b"}, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
		sleep(5 * time.Second)
		f.checked("a")
		start := time.Now()
		p.Report(p.Get("a"), syscall.ECONNRESET)
		sleep(100 * time.Millisecond)
		if at := f.checked("a"); len(at) == 0 || at[0].Sub(start) > 100*time.Millisecond {
			t.Errorf("checked at %v, want at once", at)
		}
		l.want(t)
	})
}

// TestHalfRule: health closes Lost of at most half of the pool.
func TestHalfRule(t *testing.T) {
	run(t, balancer.Options{}, []string{"a", "b", "c", "d", "e"}, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
		lost := func() (n int) {
			for b := range p.All() {
				if closed(b.Lost()) {
					n++
				}
			}
			return n
		}
		f.set("hung", "a", "b")
		sleep(3 * time.Second)
		if lost() != 2 {
			t.Errorf("%d of 2 dead backends are lost, want all", lost())
		}
		*l = nil
		f.set("hung", "c")
		sleep(3 * time.Second)
		l.want(t, "c up-down")
		f.set("hung", "d")
		sleep(3 * time.Second)
		l.want(t, "d up-down")
		c, d := p.Get("c").Lost(), p.Get("d").Lost()

		// The operator's word counts always, and makes no room.
		must(t, p.Off("d"))
		l.want(t, "d down-down lost")
		if !closed(d) || closed(c) {
			t.Error("off: want d lost and c held back")
		}
		// One that comes back makes room for one that waits.
		f.set("", "a")
		sleep(3 * time.Second)
		l.want(t, "a down-up", "c down-down lost")
		if !closed(c) {
			t.Error("c is still held back")
		}
		// One that was held back and comes back was never lost.
		f.set("hung", "e")
		sleep(3 * time.Second)
		l.want(t, "e up-down")
		e := p.Get("e").Lost()
		f.set("", "e")
		sleep(3 * time.Second)
		l.want(t, "e down-up")
		if closed(e) || e != p.Get("e").Lost() {
			t.Error("e was lost")
		}
	})
}

func TestStartDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{does: map[string]string{"b": "hung", "c": "sick"}, checks: map[string][]time.Time{}}
		p := newPool(t, &balancer.Options{StartDown: true, Check: &balancer.Check{Path: "/health"}, Transport: &balancer.Transport{Dial: f.dial}}, "a", "b", "c")
		a := p.Get("a")
		if a.State() != balancer.Down || !closed(a.Lost()) {
			t.Errorf("before the first check: %v, lost %v", a.State(), closed(a.Lost()))
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		sleep(200 * time.Millisecond)
		if a.State() != balancer.Up || closed(a.Lost()) {
			t.Errorf("after one good check: %v, lost %v", a.State(), closed(a.Lost()))
		}
		if s := p.Get("b").State(); s != balancer.Down {
			t.Errorf("hung: %v, want down", s)
		}
		if s := p.Get("c").State(); s != balancer.Draining {
			t.Errorf("sick: %v, want draining", s)
		}
		cancel()
		<-done
	})
}

func TestRunFollowsThePool(t *testing.T) {
	run(t, balancer.Options{}, []string{"a"}, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
		if err := p.Run(t.Context()); err == nil {
			t.Error("a second Run at the same time: no error")
		}
		must(t, p.Add(newBackend(t, "b", 1)))
		must(t, p.Remove("a"))
		synctest.Wait() // for a check that was due at this moment
		f.checked("a")
		sleep(5 * time.Second)
		if n := len(f.checked("a")); n != 0 {
			t.Errorf("%d checks of a removed backend", n)
		}
		if n := len(f.checked("b")); n < 5 {
			t.Errorf("%d checks of an added backend in 5 s", n)
		}
	})
}

func TestRunAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{does: map[string]string{}, checks: map[string][]time.Time{}}
		p := newPool(t, &balancer.Options{Check: &balancer.Check{Path: "/health"}, Transport: &balancer.Transport{Dial: f.dial}}, "a")
		f.set("hung", "a")
		p.Report(p.Get("a"), syscall.ECONNREFUSED) // nobody runs: nothing comes of it
		time.AfterFunc(300*time.Millisecond, func() { f.set("", "a") })
		told := 0
		p.OnChange(func(balancer.Change) { told++ })
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			must(t, p.Run(ctx))
			cancel()
			if n := len(f.checked("a")); n < 5 || n > 7 {
				t.Errorf("%d checks in 5 s", n)
			}
		}
		if told > 0 {
			t.Errorf("told %d changes, want one failed check to be forgiven", told)
		}
	})
}

// A backend that is added is reported, even if it is Down until its first check.
func TestStartDownIsReported(t *testing.T) {
	t.Parallel()
	p := newPool(t, &balancer.Options{StartDown: true})
	var got []balancer.Change
	p.OnChange(func(c balancer.Change) { got = append(got, c) })
	must(t, p.Add(newBackend(t, "a", 1)))
	if len(got) != 1 || got[0].Why != "added" || got[0].From != balancer.Down || got[0].To != balancer.Down || got[0].Lost || got[0].Empty {
		t.Errorf("reported %+v", got)
	}
}
