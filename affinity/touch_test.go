package affinity_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/internal/redistest"
)

func touch(t *testing.T, s affinity.Toucher, key, backend string) {
	t.Helper()
	if err := s.Touch(t.Context(), key, backend); err != nil {
		t.Errorf("Touch(%q, %q): %v", key, backend, err)
	}
}

func TestTouchLRU(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		lru     *affinity.LRU
		backend string // that is touched
		steps   int    // of 45 seconds, after each of which it is
		want    string // what a Load finds 45 seconds later
	}{
		{"extends", &affinity.LRU{Idle: time.Minute}, "b1", 10, "b1"},
		{"another backend's", &affinity.LRU{Idle: time.Minute}, "b2", 1, ""},
		{"expired in between", &affinity.LRU{Idle: 40 * time.Second}, "b1", 2, ""},
		{"not beyond its age", &affinity.LRU{Idle: time.Minute, Age: 3 * time.Minute}, "b1", 3, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				swap(t, tt.lru, "k", "", "b1", "b1")
				for range tt.steps {
					time.Sleep(45 * time.Second)
					touch(t, tt.lru, "k", tt.backend)
				}
				time.Sleep(45 * time.Second)
				if home, err := tt.lru.Load(t.Context(), "k"); home != tt.want || err != nil {
					t.Errorf("Load = %q, %v, want %q", home, err, tt.want)
				}
			})
		})
	}

	// Of a full table those go that were touched and used longest ago.
	lru := &affinity.LRU{Size: 2}
	swap(t, lru, "a", "", "b1", "b1")
	swap(t, lru, "b", "", "b1", "b1")
	touch(t, lru, "a", "b1")
	swap(t, lru, "c", "", "b1", "b1")
	touch(t, lru, "a", "b2")
	swap(t, lru, "d", "", "b1", "b1")
	if home, _ := lru.Load(t.Context(), "a"); home != "" {
		t.Errorf("a touch of another backend's has kept the pin of %q", home)
	}
	if home, _ := lru.Load(t.Context(), "c"); home != "b1" {
		t.Error("pins that were used lately had to go")
	}
}

func TestTouchEvery(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ idle, want time.Duration }{
		{0, 6 * time.Hour},
		{time.Hour, 15 * time.Minute},
		{-1, 0},
	} {
		for _, s := range []affinity.Toucher{&affinity.LRU{Idle: tt.idle}, &affinity.Redis{Idle: tt.idle}} {
			if got := s.TouchEvery(); got != tt.want {
				t.Errorf("%T with Idle %v: %v, want %v", s, tt.idle, got, tt.want)
			}
		}
	}
}

// Only a touch of the backend that is there restarts the lifetime, whatever the replica
// that touches has in its memory. Nothing else is written.
func TestTouchRedis(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	const name, idle = "limpet:pin:k", 2 * time.Second
	newStore := func() *affinity.Redis {
		return &affinity.Redis{Timeout: patience, Client: client, Idle: idle, Fresh: -1}
	}
	for _, tt := range []struct {
		name     string
		knows    string // the backend in the memory of the replica
		there    string // in Redis
		backend  string // that is touched
		restarts bool   // the lifetime
		load     string // what the replica finds then
	}{
		{"its own", "b1", "b1", "b1", true, "b1"},
		{"unknown to the replica", "", "b1", "b1", true, "b1"},
		{"another's", "b1", "b1", "b2", false, "b1"},
		{"moved by another replica", "b1", "b2", "b1", false, "b2"},
		{"moved here by another replica", "b1", "b2", "b2", true, "b2"},
		{"lost", "b1", "", "b1", false, "b1"}, // by Redis, and the Load restores it
		{"never there", "", "", "b1", false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client.FlushAll(t.Context())
			client.ScriptFlush(t.Context())
			store := newStore()
			if tt.knows != "" {
				swap(t, store, "k", "", tt.knows, tt.knows)
			}
			client.FlushAll(t.Context())
			if tt.there != "" {
				client.Set(t.Context(), name, fmt.Sprint(time.Now().UnixMilli(), " ", tt.there), time.Hour)
			}
			before := store.Stats().Calls
			await(t, "a touch that asks Redis", func() bool {
				touch(t, store, "k", tt.backend)
				return store.Stats().Calls > before
			})
			ttl := client.PTTL(t.Context(), name).Val()
			switch {
			case tt.there == "" && ttl != -2:
				t.Errorf("a touch has made a pin with the lifetime %v", ttl)
			case tt.there != "" && tt.restarts != (ttl <= idle):
				t.Errorf("lifetime %v", ttl)
			}
			client.PExpire(t.Context(), name, time.Hour)
			if home, err := store.Load(t.Context(), "k"); home != tt.load || err != nil {
				t.Errorf("Load = %q, %v, want %q", home, err, tt.load)
			}
		})
	}
}

// However many tunnels a client has and however often they are touched, Redis is asked no
// more than about once each eighth of Idle. While it is away, the memory of the replica
// counts the touches.
func TestTouchRedisSeldom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake, client := newFakeRedis(t, "0 b1")
		store := &affinity.Redis{Client: client, Idle: 8 * time.Hour, Logger: slog.New(slog.DiscardHandler)}
		_, _ = store.Load(t.Context(), "k")
		_, _ = store.Load(t.Context(), "other")
		for range 24 * 60 {
			time.Sleep(time.Minute)
			touch(t, store, "k", "b1")
		}
		if n := fake.calls.Load() - 2; n != 24 {
			t.Errorf("Redis was asked %d times within 24 eighths of Idle", n)
		}
		fake.answer.Store(nil)
		for range 24 {
			time.Sleep(time.Hour)
			touch(t, store, "k", "b1")
		}
		if home, err := store.Load(t.Context(), "k"); home != "b1" || err != nil {
			t.Errorf("after a day without Redis, Load = %q, %v", home, err)
		}
		if err := store.Touch(t.Context(), "other", "b1"); err == nil {
			t.Error("no error for a pin that is known nowhere")
		}
	})
}

// A pin that was moved while Redis was away isn't overwritten by what Redis still has.
func TestTouchKeepsAPendingMove(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake, client := newFakeRedis(t, "0 b1")
		store := &affinity.Redis{Client: client, Idle: time.Hour, Logger: slog.New(slog.DiscardHandler)}
		_, _ = store.Load(t.Context(), "k")
		was := fake.answer.Swap(nil)
		if now, err := store.Swap(t.Context(), "k", "b1", "b2"); now != "b2" || err == nil {
			t.Fatalf("Swap = %q, %v", now, err)
		}
		fake.answer.Store(was)
		time.Sleep(30 * time.Minute)
		touch(t, store, "k", "b1")
		fake.answer.Store(nil)
		if home, err := store.Load(t.Context(), "k"); home != "b2" || err != nil {
			t.Errorf("Load = %q, %v", home, err)
		}
	})
}

// A request whose answer opens a tunnel tells which pins the tunnel keeps, and where they
// lie. With each of them a store finds the client's home.
func TestKeep(t *testing.T) {
	t.Parallel()
	newTable := func() *affinity.Table { return &affinity.Table{Name: "t", Key: affinity.Header("User")} }
	for _, tt := range []struct {
		name     string
		affinity affinity.Affinity
		found    string // the home of the client, "" for a new one
		home     string // of the answer
		standIn  string
		sets     string // the cookie that the answer sets
		want     []string
	}{
		{"a table's new client", newTable(), "", "b1", "", "", []string{"b1"}},
		{"a table's client", newTable(), "b1", "b1", "", "", []string{"b1"}},
		{"a client that moves", newTable(), "b1", "b2", "", "", []string{"b2"}},
		{"a home that is stood in for", newTable(), "b1", "b1", "b2", "", []string{"b1"}},
		{"without idle lifetime", &affinity.Table{Key: affinity.Header("User"), Store: &affinity.LRU{Idle: -1}}, "", "b1", "", "", []string{"b1"}},
		{"a store that can't", &affinity.Table{Key: affinity.Header("User"), Store: struct{ affinity.Store }{&affinity.LRU{}}}, "", "b1", "", "", nil},
		{"a value that is learnt", &affinity.AppCookie{Name: "s"}, "", "b1", "", "", []string{"b1"}},
		{"a value that is known", &affinity.AppCookie{Name: "s"}, "b1", "b1", "", "", []string{"b1"}},
		{"a value that is set", &affinity.AppCookie{Name: "s"}, "b1", "b1", "", "s=new", []string{"b1"}},
		{"a value that a stand-in sets", &affinity.AppCookie{Name: "s"}, "b1", "b1", "b2", "s=new", []string{"b2"}},
		{"a value that is deleted", &affinity.AppCookie{Name: "s"}, "b1", "b1", "", "s=x; Max-Age=0", nil},
		{"a prefix", &affinity.AppCookie{Name: "s", Prefix: true}, "", "b1", "", "", nil},
		{"a hash", &affinity.Hash{Key: affinity.Header("User")}, "", "b1", "", "", nil},
		{"a chain", affinity.Chain{&affinity.Cookie{Secrets: testSecrets}, &affinity.AppCookie{Name: "s"}, newTable()}, "b1", "b2", "", "s=new", []string{"b2", "b2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := get("/", "s=old")
			r.Header.Set("User", "ann")
			if tt.found != "" {
				bind(t, tt.affinity, r, find(t, tt.affinity, r), tt.found)
			}
			res := &http.Response{StatusCode: http.StatusSwitchingProtocols, Header: http.Header{}, Request: r}
			if tt.sets != "" {
				res.Header.Set("Set-Cookie", tt.sets)
			}
			a := to(tt.home, res, find(t, tt.affinity, r))
			a.StandIn = tt.standIn
			var kept []string
			var check []func()
			a.Keep = func(s affinity.Toucher, key, backend string) {
				kept = append(kept, backend)
				check = append(check, func() {
					if home, err := s.Load(t.Context(), key); home != backend || err != nil {
						t.Errorf("Load(%q) = %q, %v, want %q", key, home, err, backend)
					}
				})
			}
			if _, err := tt.affinity.Bind(a); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(kept, tt.want) {
				t.Errorf("keeps pins to %q, want %q", kept, tt.want)
			}
			for _, f := range check {
				f()
			}
		})
	}
}
