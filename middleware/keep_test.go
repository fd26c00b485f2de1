package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/affinity"
	limpet "github.com/limpet-go/limpet/middleware"
)

// open opens a tunnel as this user.
func (d *ward) open(t *testing.T, user string) *websocket.Conn {
	t.Helper()
	conn, _, err := websocket.Dial(t.Context(), "ws://gateway/", &websocket.DialOptions{
		HTTPClient: d.client(t), HTTPHeader: http.Header{"User": {user}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	return conn
}

// A touches is a store in memory that notes when its pins are touched.
type touches struct {
	affinity.LRU
	fails error

	mu    sync.Mutex
	times map[string][]time.Time
}

func (s *touches) Touch(ctx context.Context, key, backend string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.times == nil {
		s.times = make(map[string][]time.Time)
	}
	s.times[key] = append(s.times[key], time.Now())
	return errors.Join(s.fails, s.LRU.Touch(ctx, key, backend))
}

func (s *touches) count() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, times := range s.times {
		n += len(times)
	}
	return n
}

// A tunnel that is open for longer than the idle lifetime of pins keeps the client's home,
// and doesn't once it is closed.
func TestTunnelKeepsItsPin(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		pins func(affinity.Store) affinity.Affinity
	}{
		{"table", func(s affinity.Store) affinity.Affinity {
			return &affinity.Table{Key: affinity.Header("User"), Store: s}
		}},
		{"chain", func(s affinity.Store) affinity.Affinity {
			return affinity.Chain{&affinity.EngineIO{Secrets: testKeys}, &affinity.Table{Key: affinity.Header("User"), Store: s}}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := &affinity.LRU{Idle: time.Minute}
				d := newWard(t, 3, &limpet.Options{Affinity: tt.pins(store)})
				load := func() string {
					home, err := store.Load(t.Context(), "ann")
					ok(t, err)
					return home
				}
				conn := d.open(t, "ann")
				home := load()
				time.Sleep(time.Hour)
				if got := load(); home == "" || got != home {
					t.Errorf("after an hour the home is %q, was %q", got, home)
				}
				talk(t, conn)
				conn.CloseNow()
				synctest.Wait()
				time.Sleep(time.Minute)
				if got := load(); got != "" {
					t.Errorf("a minute after the tunnel was closed the home is still %q", got)
				}
			})
		})
	}
}

// A client that was bound to another home while its tunnel is open isn't bound back, and
// its tunnel doesn't keep the new pin either.
func TestTunnelOfAClientThatMoved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &affinity.LRU{Idle: time.Minute}
		d := newWard(t, 2, &limpet.Options{Affinity: &affinity.Table{Key: affinity.Header("User"), Store: store}})
		d.open(t, "ann")
		home, _ := store.Load(t.Context(), "ann")
		other := map[string]string{"a": "b", "b": "a"}[home]
		_, err := store.Swap(t.Context(), "ann", home, other)
		ok(t, err)
		time.Sleep(50 * time.Second)
		if got, _ := store.Load(t.Context(), "ann"); got != other {
			t.Errorf("the home is %q, want %q", got, other)
		}
		time.Sleep(time.Minute)
		if got, _ := store.Load(t.Context(), "ann"); got != "" {
			t.Errorf("the tunnel has kept a pin to %q", got)
		}
	})
}

// Many tunnels that were opened at once are touched one by one, each between once and twice
// per period. Nothing is touched when they are closed.
func TestTouchesAreSpread(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const clients, idle, periods = 40, time.Hour, 20
		const every = idle / 4
		store := &touches{LRU: affinity.LRU{Idle: idle}}
		d := newWard(t, 1, &limpet.Options{Affinity: &affinity.Table{Key: affinity.Header("User"), Store: store}})
		opened := time.Now()
		var conns []*websocket.Conn
		for i := range clients {
			conns = append(conns, d.open(t, fmt.Sprint(i)))
		}
		time.Sleep(periods * every)
		store.mu.Lock()
		var all []time.Time
		for user, times := range store.times {
			last := opened
			for _, at := range append(times, time.Now()) {
				if gap := at.Sub(last); gap > 2*every || gap < every && !at.Equal(time.Now()) {
					t.Errorf("user %s: touched %v after the last time", user, gap)
				}
				last = at
			}
			all = append(all, times...)
		}
		if len(store.times) != clients {
			t.Errorf("%d of %d pins were touched", len(store.times), clients)
		}
		store.mu.Unlock()
		slices.SortFunc(all, time.Time.Compare)
		for i := 1; i < len(all); i++ {
			if gap := all[i].Sub(all[i-1]); gap < every/clients {
				t.Errorf("two touches within %v", gap)
			}
		}
		for _, c := range conns[1:] {
			c.CloseNow()
		}
		synctest.Wait()
		n := store.count()
		time.Sleep(4*every + time.Second)
		if got := store.count() - n; got < 3 || got > 5 {
			t.Errorf("the one that is left was touched %d times within four periods", got)
		}
		conns[0].CloseNow()
		synctest.Wait()
		n = store.count()
		time.Sleep(periods * every)
		if store.count() != n {
			t.Error("a pin was touched whose tunnel is closed")
		}
		d.open(t, "late")
		time.Sleep(every + time.Second)
		if store.count() != n+1 {
			t.Error("a tunnel that was opened later isn't kept")
		}
	})
}

// A store that fails is asked again a period later, and the log says so.
func TestTouchFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, log := &touches{LRU: affinity.LRU{Idle: time.Hour}, fails: errors.New("no store today")}, &notes{}
		d := newWard(t, 1, &limpet.Options{Affinity: &affinity.Table{Key: affinity.Header("User"), Store: store}, Logger: log.logger()})
		talk(t, d.open(t, "ann"))
		time.Sleep(31 * time.Minute)
		if n := store.count(); n != 2 {
			t.Errorf("touched %d times", n)
		}
		if told := log.about("no store today"); len(told) != 2 || !strings.Contains(told[0], "pin of a tunnel") {
			t.Errorf("log: %q", told)
		}
	})
}

// A cookie can't be renewed while a tunnel is open. The next request of a client whose
// cookie has become too old meanwhile is placed by its key, and gets a cookie that is good
// for Idle again.
func TestCookieThatIdlesInATunnel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newWard(t, 3, &limpet.Options{Affinity: &affinity.Cookie{Secrets: testKeys, Idle: time.Hour}, PinHeader: "Pin"})
		conn, res, err := websocket.Dial(t.Context(), "ws://gateway/", &websocket.DialOptions{HTTPClient: d.client(t)})
		ok(t, err)
		defer conn.CloseNow()
		ask := func(cookies []*http.Cookie, want string) *http.Response {
			t.Helper()
			r, _ := http.NewRequestWithContext(t.Context(), "GET", "http://gateway/", nil)
			for _, c := range cookies {
				r.AddCookie(c)
			}
			res, err := d.client(t).Do(r)
			ok(t, err)
			res.Body.Close()
			if got := res.Header.Get("Pin"); got != want {
				t.Errorf("the pin is %q, want %q", got, want)
			}
			return res
		}
		first := res.Cookies()
		time.Sleep(2 * time.Hour)
		talk(t, conn)
		next := ask(first, "expired").Cookies()
		time.Sleep(50 * time.Minute)
		next = ask(next, "hit").Cookies() // and slides
		time.Sleep(50 * time.Minute)
		ask(next, "hit")
	})
}
