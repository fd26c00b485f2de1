// Package affinitytest has conformance tests for an [affinity.Affinity] and an
// [affinity.Store]. Those of Limpet pass them; run them on your own.
package affinitytest

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/affinity"
)

// Options says what the affinity under test does.
type Options struct {
	// Remembers says that the home of a client is the backend that it was last
	// bound to.
	Remembers bool

	// Sealed says that the mark is a cookie that a client can neither make nor
	// change. A mark that the client has made must be found as Forged, without
	// a Backend and a Key.
	Sealed bool

	// Idle is the time after which a client that sends nothing has no home any
	// more, while a client that sends requests keeps it. 0 means that pins
	// don't expire. The test runs in a bubble of package testing/synctest, so
	// the affinity must not use the network.
	Idle time.Duration

	// Cookies has the names of the cookies that the affinity reads or removes
	// beside those that it sets in the course of the test.
	Cookies []string

	// Answer plays the application of the backend home. It gets a request as
	// Rewrite has left it, and adds to the answer what the application would,
	// such as a cookie. It must set no cookie on the answer to a CORS
	// preflight. Nil adds nothing.
	Answer func(out *http.Request, home string, res *http.Response)

	// Request returns a new request of client n, without the cookies that the
	// affinity has set. Nil means requests that tell client n by its address,
	// by the header "Client" and by the query parameter "client".
	Request func(n int) *http.Request
}

// TestAffinity runs the conformance tests of an affinity as subtests of t.
// newReplica returns the affinity as each of several replicas of a gateway has
// it: with the same secrets, and on the same store.
func TestAffinity(t *testing.T, newReplica func() affinity.Affinity, opts Options) {
	t.Helper()
	if opts.Request == nil {
		opts.Request = request
	}
	if opts.Answer == nil {
		opts.Answer = func(*http.Request, string, *http.Response) {}
	}
	s := &suite{Options: opts, newReplica: newReplica}
	s.clients.Store(rand.Int32N(1 << 22)) // the store may have pins of an earlier run
	for _, tt := range []struct {
		name string
		runs bool
		test func(*testing.T)
	}{
		{"new client", true, s.newClient},
		{"returning client", true, s.returning},
		{"moved home", opts.Remembers, s.moved},
		{"stand-in", opts.Remembers, s.standIn},
		{"two replicas", true, s.replicas},
		{"many clients", true, s.many},
		{"parallel first requests", opts.Remembers, s.parallelFirst},
		{"parallel use", true, s.parallel},
		{"8 KiB cookie header", true, s.large},
		{"CORS preflight", true, s.preflight},
		{"forged", opts.Sealed, s.forged},
		{"hostile values", true, s.hostile},
		{"expired", opts.Idle > 0, func(t *testing.T) { synctest.Test(t, s.expired) }},
	} {
		if tt.runs {
			t.Run(tt.name, tt.test)
		}
	}
}

type suite struct {
	Options
	newReplica func() affinity.Affinity
	clients    atomic.Int32
}

func (s *suite) newClient(t *testing.T) {
	found := s.client(t).visit(s.newReplica(), "b1")
	if s.Remembers && (found.Backend != "" || found.Status != affinity.None || found.Fixed) {
		t.Errorf("Find = %+v, want nothing", found)
	}
}

func (s *suite) returning(t *testing.T) {
	a, c := s.newReplica(), s.client(t)
	first := c.visit(a, "b1")
	key := c.key
	second := c.visit(a, "b1")
	if second.Key != key {
		t.Errorf("key = %q, want %q as Bind said", second.Key, key)
	}
	third := c.visit(a, "b1")
	if s.Remembers {
		s.want(t, second, "b1")
		first = second // Bind may have made the key of the new client
	}
	same(t, second, first)
	same(t, third, first)
}

func (s *suite) moved(t *testing.T) {
	a, c := s.newReplica(), s.client(t)
	c.visit(a, "b1")
	before := c.visit(a, "b2")
	after := c.visit(a, "b2")
	s.want(t, before, "b1")
	s.want(t, after, "b2")
	if before.Key != after.Key {
		t.Errorf("key = %q, was %q before the move", after.Key, before.Key)
	}
}

// A backend that answers in place of the home doesn't become it.
func (s *suite) standIn(t *testing.T) {
	a, c := s.newReplica(), s.client(t)
	c.visit(a, "b1")
	for range 2 {
		s.want(t, c.exchange(a, c.next(), "b1", "b2"), "b1")
	}
	s.want(t, c.visit(a, "b1"), "b1")
}

func (s *suite) replicas(t *testing.T) {
	a, b, c := s.newReplica(), s.newReplica(), s.client(t)
	c.visit(a, "b1")
	same(t, c.visit(b, "b1"), c.visit(a, "b1"))
	c.visit(b, "b2")
	same(t, c.visit(b, "b2"), c.visit(a, "b2"))
	if s.Remembers {
		s.want(t, c.visit(a, "b2"), "b2")
	}
}

func (s *suite) many(t *testing.T) {
	a := s.newReplica()
	clients := make([]*client, 50)
	for i := range clients {
		clients[i] = s.client(t)
		clients[i].visit(a, fmt.Sprint("b", i))
	}
	keys := map[string]int{}
	for i, c := range clients {
		home := fmt.Sprint("b", i)
		found := c.visit(a, home)
		if s.Remembers {
			s.want(t, found, home)
		}
		if other, ok := keys[found.Key]; ok && found.Key != "" {
			t.Errorf("clients %d and %d have the key %q", other, i, found.Key)
		}
		keys[found.Key] = i
	}
}

// The first requests of a client are answered by several backends at once. In the
// end one of these is its home on all replicas.
func (s *suite) parallelFirst(t *testing.T) {
	a, b, c := s.newReplica(), s.newReplica(), s.client(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() { c.visit([]affinity.Affinity{a, b}[i%2], fmt.Sprint("b", i)) })
	}
	wg.Wait()
	home := c.find(a).Backend
	s.want(t, c.visit(a, home), home)
	s.want(t, c.visit(b, home), home)
}

func (s *suite) parallel(t *testing.T) {
	a := s.newReplica()
	var wg sync.WaitGroup
	for i := range 16 {
		c := s.client(t)
		wg.Go(func() {
			home := fmt.Sprint("b", i)
			c.visit(a, home)
			for range 20 {
				if found := c.visit(a, home); s.Remembers {
					s.want(t, found, home)
				}
			}
		})
	}
	wg.Wait()
}

func (s *suite) large(t *testing.T) {
	a, c := s.newReplica(), s.client(t)
	c.visit(a, "b1")
	want := c.find(a)
	for i := range 80 {
		filler := fmt.Sprintf("f%d=%s", i, strings.Repeat("x", 100))
		if i%2 == 0 {
			c.before = append(c.before, filler)
		} else {
			c.after = append(c.after, filler)
		}
	}
	same(t, c.visit(a, "b1"), want)
}

func (s *suite) preflight(t *testing.T) {
	a, c := s.newReplica(), s.client(t)
	r := c.request()
	r.Method = http.MethodOptions
	r.Header.Set("Origin", "https://app.example")
	r.Header.Set("Access-Control-Request-Method", "POST")
	if c.exchange(a, r, "b1", ""); len(c.jar) > 0 {
		t.Errorf("the answer to a preflight sets %v", c.jar)
	}
}

func (s *suite) forged(t *testing.T) {
	a, c := s.newReplica(), s.client(t)
	c.visit(a, "b1")
	if len(c.jar) == 0 {
		t.Fatal("no cookie was set")
	}
	genuine := c.jar[0]
	forge := func(value string) { c.jar = []cookie{{genuine.name, value}} }
	for at := range genuine.value {
		b := []byte(genuine.value)
		b[at] = map[bool]byte{true: 'B', false: 'A'}[b[at] == 'A']
		forge(string(b))
		s.wantForged(t, c.find(a), string(b))
	}
	forge(genuine.value[:len(genuine.value)/2])
	s.wantForged(t, c.visit(a, "b2"), "half of a cookie") // and the client gets a genuine one
	s.want(t, c.visit(a, "b2"), "b2")
}

func (s *suite) hostile(t *testing.T) {
	a, c := s.newReplica(), s.client(t)
	c.visit(a, "b1")
	names := c.ours
	c.jar = nil
	for _, name := range names {
		for _, value := range []string{
			"", "=", `"`, `""`, ";", "; ;", "\x00", "\xff\xfe", "b1", "AQ", "....", "%00", "a b",
			strings.Repeat("A", 1024), strings.Repeat("A", 8192), strings.Repeat("=;"+name, 1000),
		} {
			c.before = []string{name + "=" + value}
			if found := c.visit(a, "b1"); s.Sealed {
				s.wantForged(t, found, value)
			}
			c.jar = nil
		}
	}
}

func (s *suite) expired(t *testing.T) {
	a, active, idle := s.newReplica(), s.client(t), s.client(t)
	active.visit(a, "b1")
	idle.visit(a, "b1")
	for range 6 {
		time.Sleep(s.Idle / 2)
		s.want(t, active.visit(a, "b1"), "b1")
	}
	// A store can't tell a mark that it has forgotten from one that it never knew.
	if found := idle.visit(a, "b2"); found.Backend != "" || found.Status == affinity.Hit || found.Status == affinity.Forged {
		t.Errorf("after the idle time, Find = %+v", found)
	}
	s.want(t, idle.visit(a, "b2"), "b2")
}

func (s *suite) want(t *testing.T, found affinity.Pin, home string) {
	t.Helper()
	if found.Backend != home || found.Status != affinity.Hit || found.Backend == "" {
		t.Errorf("Find = %+v, want a hit on %q", found, home)
	}
}

func (s *suite) wantForged(t *testing.T, found affinity.Pin, value string) {
	t.Helper()
	if found.Backend != "" || found.Key != "" || found.Status != affinity.Forged {
		t.Errorf("Find = %+v with %.40q, want a forged mark", found, value)
	}
}

// same compares two pins without their notes.
func same(t *testing.T, got, want affinity.Pin) {
	t.Helper()
	got.Note, want.Note = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Find = %+v, want %+v", got, want)
	}
}

func (s *suite) client(t *testing.T) *client {
	n := int(s.clients.Add(1))
	return &client{t: t, ours: slices.Clone(s.Cookies), request: func() *http.Request { return s.Request(n) }, answer: s.Answer}
}

// request is the default for Options.Request.
func request(n int) *http.Request {
	r, err := http.NewRequest("GET", fmt.Sprintf("http://gateway.example/path?a=1&client=c%d", n), nil)
	if err != nil {
		panic(err)
	}
	r.RemoteAddr = fmt.Sprintf("10.%d.%d.%d:%d", n>>16&255, n>>8&255, n&255, 1024+rand.IntN(60000))
	r.Header.Set("Client", fmt.Sprint("c", n))
	return r
}

// cookies returns the cookies in the Cookie fields, except those of the names
// without.
func cookies(h http.Header, without ...string) []string {
	var parts []string
	for _, line := range h["Cookie"] {
		for part := range strings.SplitSeq(line, ";") {
			part = strings.TrimSpace(part)
			name, _, _ := strings.Cut(part, "=")
			if !slices.Contains(without, name) {
				parts = append(parts, part)
			}
		}
	}
	return parts
}
