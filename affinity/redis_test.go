package affinity_test

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/affinity/affinitytest"
	"github.com/limpet-go/limpet/internal/redistest"
)

// patience is how long tests wait for what must happen. It measures nothing. It also
// is the time limit of stores in tests that aren't about it, which must not fail
// because of a slow machine.
const patience = 30 * time.Second

func TestRedisConformance(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	shared := &affinity.Redis{Timeout: patience, Client: client}
	cluster, sentinel := redistest.StartCluster(t).Client(t), redistest.StartSentinel(t).Client(t)
	for _, tt := range []struct {
		name     string
		newStore func() affinity.Store
	}{
		{"always asked", func() affinity.Store { return &affinity.Redis{Timeout: patience, Client: client, Fresh: -1} }},
		{"no memory", func() affinity.Store { return &affinity.Redis{Timeout: patience, Client: client, Size: -1} }},
		{"lifetimes", func() affinity.Store {
			return &affinity.Redis{Timeout: patience, Client: client, Fresh: -1, Idle: time.Hour, Age: time.Hour}
		}},
		{"no lifetime", func() affinity.Store { return &affinity.Redis{Timeout: patience, Client: client, Fresh: -1, Idle: -1} }},
		{"one replica that remembers", func() affinity.Store { return shared }},
		{"Cluster", func() affinity.Store { return &affinity.Redis{Timeout: patience, Client: cluster, Fresh: -1} }},
		{"Sentinel", func() affinity.Store { return &affinity.Redis{Timeout: patience, Client: sentinel, Fresh: -1} }},
	} {
		t.Run(tt.name, func(t *testing.T) { affinitytest.TestStore(t, tt.newStore) })
	}
}

// await asks until ok is true.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestRedisLifetimes(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	const name = "limpet:pin:k"
	for _, tt := range []struct {
		name      string
		idle, age time.Duration
		atFirst   time.Duration // the lifetime in Redis after a Swap, -1 for none
		spent     time.Duration // then the pin is made as old as this,
		left      time.Duration // and after a Load, this is its lifetime: 0 is gone
	}{
		{"default", 0, 0, 24 * time.Hour, 1000 * time.Hour, 24 * time.Hour},
		{"idle", time.Hour, 0, time.Hour, 1000 * time.Hour, time.Hour},
		{"never", -1, 0, -1, 1000 * time.Hour, -1},
		{"idle, young", time.Hour, 3 * time.Hour, time.Hour, time.Hour, time.Hour},
		{"idle, soon too old", time.Hour, 3 * time.Hour, time.Hour, 150 * time.Minute, 30 * time.Minute},
		{"idle, too old", time.Hour, 3 * time.Hour, time.Hour, 3 * time.Hour, 0},
		{"never idle, soon too old", -1, 3 * time.Hour, 3 * time.Hour, time.Hour, 2 * time.Hour},
		{"too old at once", time.Hour, time.Minute, time.Minute, time.Minute, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client.FlushAll(t.Context())
			newStore := func() affinity.Store {
				return &affinity.Redis{Timeout: patience, Client: client, Idle: tt.idle, Age: tt.age}
			}
			ttl := func(want time.Duration) {
				t.Helper()
				got := client.PTTL(t.Context(), name).Val()
				if got > want || got < want-time.Minute/2 {
					t.Errorf("lifetime %v, want %v", got, want)
				}
			}
			swap(t, newStore(), "k", "", "b1", "b1")
			ttl(tt.atFirst)

			value := client.Get(t.Context(), name).Val()
			at, backend, _ := strings.Cut(value, " ")
			born, err := strconv.ParseInt(at, 10, 64)
			if err != nil || time.Since(time.UnixMilli(born)).Abs() > time.Minute {
				t.Fatalf("Redis has %q", value)
			}
			life := time.Minute // all but used up
			if tt.atFirst < 0 {
				life = 0
			}
			client.Set(t.Context(), name, fmt.Sprint(born-tt.spent.Milliseconds(), " ", backend), life)

			another := newStore()
			want := "b1"
			if tt.left == 0 {
				want = ""
			}
			if home, err := another.Load(t.Context(), "k"); home != want || err != nil {
				t.Errorf("Load = %q, %v, want %q", home, err, want)
			}
			if tt.left != 0 {
				ttl(tt.left)
				return
			}
			swap(t, another, "k", "b1", "b2", "")
			swap(t, another, "k", "", "b2", "b2")
			ttl(tt.atFirst)
		})
	}
}

// A swap that wins restarts the lifetimes, one that loses doesn't.
func TestRedisSwapLifetimes(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	store := &affinity.Redis{Timeout: patience, Client: client, Prefix: "p/", Idle: time.Hour}
	swap(t, store, "k", "", "b1", "b1")
	client.Expire(t.Context(), "p/k", time.Minute)
	swap(t, store, "k", "b2", "b3", "b1")
	if ttl := client.PTTL(t.Context(), "p/k").Val(); ttl <= 0 || ttl > time.Minute {
		t.Errorf("lifetime %v after a swap that lost", ttl)
	}
	swap(t, store, "k", "b1", "b2", "b2")
	if ttl := client.PTTL(t.Context(), "p/k").Val(); ttl <= time.Minute || ttl > time.Hour {
		t.Errorf("lifetime %v after a swap that won", ttl)
	}
}

// A Redis gets the pins back that it has lost. Deleted pins stay deleted.
func TestRedisRestoresWhatIsLost(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	a := &affinity.Redis{Timeout: patience, Client: client, Fresh: -1, Age: time.Hour}
	b := &affinity.Redis{Timeout: patience, Client: client, Fresh: -1, Age: time.Hour}
	newcomer := &affinity.Redis{Timeout: patience, Client: client, Size: -1}
	for _, key := range []string{"lost", "deleted"} {
		swap(t, a, key, "", "b1", "b1")
	}
	born := time.Now().Add(-30 * time.Minute).Truncate(time.Millisecond)
	value := fmt.Sprint(born.UnixMilli(), " b1")
	client.Set(t.Context(), "limpet:pin:lost", value, time.Minute)
	_, _ = a.Load(t.Context(), "lost")
	if home, _ := b.Load(t.Context(), "deleted"); home != "b1" {
		t.Fatalf("Load = %q", home)
	}
	client.FlushAll(t.Context())
	client.ScriptFlush(t.Context())
	swap(t, a, "deleted", "b1", "", "")
	for _, tt := range []struct {
		store     affinity.Store
		key, want string
	}{
		{newcomer, "lost", ""},
		{a, "lost", "b1"},
		{newcomer, "lost", "b1"},
		{b, "deleted", ""}, // even though b knows it
		{a, "deleted", ""},
	} {
		if home, err := tt.store.Load(t.Context(), tt.key); home != tt.want || err != nil {
			t.Errorf("Load(%q) = %q, %v, want %q", tt.key, home, err, tt.want)
		}
	}
	// Its age is still counted from when the client was bound.
	at, _, _ := strings.Cut(client.Get(t.Context(), "limpet:pin:lost").Val(), " ")
	if ms, err := strconv.ParseInt(at, 10, 64); err != nil || time.UnixMilli(ms).Sub(born).Abs() > time.Minute {
		t.Errorf("restored as of %q, was %q", at, value)
	}
}

// A value that isn't a pin counts as none.
func TestRedisForeignValue(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	store := &affinity.Redis{Timeout: patience, Client: client, Prefix: "x:"}
	client.Set(t.Context(), "x:k", "b1", 0)
	if home, err := store.Load(t.Context(), "k"); home != "" || err != nil {
		t.Errorf("Load = %q, %v", home, err)
	}
	swap(t, store, "k", "", "b2", "b2")

	client.LPush(t.Context(), "x:list", "b1")
	if home, err := store.Load(t.Context(), "list"); home != "" || err == nil || strings.Contains(err.Error(), "x:list") {
		t.Errorf("Load = %q, %v", home, err)
	}
}

func TestRedisValidate(t *testing.T) {
	t.Parallel()
	good := redis.NewClient(&redis.Options{ContextTimeoutEnabled: true})
	defer good.Close()
	deaf := redis.NewClient(&redis.Options{})
	defer deaf.Close()
	deafCluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"localhost:1"}})
	defer deafCluster.Close()
	for _, tt := range []struct {
		name  string
		store *affinity.Redis
		want  string // in the error
	}{
		{"good", &affinity.Redis{Client: good, Idle: -1, Size: -1, Fresh: -1}, ""},
		{"no client", &affinity.Redis{}, "no Client"},
		{"deaf", &affinity.Redis{Client: deaf}, "ContextTimeoutEnabled"},
		{"deaf cluster", &affinity.Redis{Client: deafCluster}, "ContextTimeoutEnabled"},
		{"age", &affinity.Redis{Client: good, Age: -1}, "age"},
		{"timeout", &affinity.Redis{Client: good, Timeout: -1}, "timeout"},
	} {
		err := (&affinity.Table{Store: tt.store}).Validate()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Validate = %v, want %q", tt.name, err, tt.want)
		}
		if err == nil {
			continue
		}
		// Without a gateway, Validate has not been called.
		if _, loadErr := tt.store.Load(t.Context(), "k"); loadErr == nil || !strings.Contains(loadErr.Error(), tt.want) {
			t.Errorf("%s: Load: %v, want %q", tt.name, loadErr, tt.want)
		}
	}
}

// A dial that hangs delays no call beyond Timeout.
func TestRedisDialHangs(t *testing.T) {
	t.Parallel()
	client := redis.NewClient(&redis.Options{
		ContextTimeoutEnabled: true, DialerRetries: 1, DialTimeout: 20 * time.Second,
		Dialer: func(ctx context.Context, _, _ string) (net.Conn, error) {
			select {
			case <-ctx.Done():
			case <-t.Context().Done(): // the test's end
			}
			return nil, context.Cause(ctx)
		},
	})
	defer client.Close()
	store := &affinity.Redis{Client: client}
	start := time.Now()
	for i := range 5 {
		home, err := store.Swap(t.Context(), fmt.Sprint(i), "", "b1")
		if home != "b1" || err == nil {
			t.Errorf("Swap = %q, %v", home, err)
		}
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("5 calls took %v", took)
	}
}
