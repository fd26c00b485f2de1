package middleware_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/balancer"
)

// A feed is a source that names what it is told to.
type feed chan []balancer.Target

func (f feed) Watch(ctx context.Context, update func([]balancer.Target, error)) {
	for {
		select {
		case targets := <-f:
			update(targets, nil)
		case <-ctx.Done():
			return
		}
	}
}

func follow(t *testing.T, pool *balancer.Pool) feed {
	t.Helper()
	f := make(feed)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- pool.Follow(ctx, f) }()
	t.Cleanup(func() {
		stop()
		ok(t, <-ended)
	})
	return f
}

// Each replica follows a source by itself. What the source wants stays there, and what the
// operator wants holds everywhere, also when a backend was gone meanwhile.
func TestReplicasFollow(t *testing.T) {
	for _, tt := range []struct {
		name string
		test func(t *testing.T, f *fleet, name func(replica int, ids ...string))
	}{
		{"a source's drain stays where it is", func(t *testing.T, f *fleet, name func(int, ...string)) {
			told := f.told.Load()
			name(0, "b", "c")
			f.settle()
			if f.pools[0].Get("a").State() != draining || f.pools[1].Get("a").State() != up {
				t.Errorf("a is %v and %v, want it drained at one replica", f.pools[0].Get("a").State(), f.pools[1].Get("a").State())
			}
			time.Sleep(30 * time.Second)
			f.settle()
			if f.pools[0].Get("a") != nil || f.pools[1].Get("a") == nil {
				t.Error("a isn't removed at one replica")
			}
			name(0, "a", "b", "c")
			f.want(up, up, up)
			if n := f.told.Load() - told; n != 0 {
				t.Errorf("%d messages on the bus, though no operator has decided anything", n)
			}
		}},
		{"an operator's drain outlives an absence", func(t *testing.T, f *fleet, name func(int, ...string)) {
			ok(t, f.pools[0].Drain("a", 10*time.Second))
			f.want(draining, up, up)
			for replica := range f.pools {
				name(replica, "b", "c")
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if f.pools[0].Get("a") != nil {
				t.Fatal("a isn't removed")
			}
			for replica := range f.pools {
				name(replica, "a", "b", "c")
				f.want(down, up, up)
			}
			ok(t, f.pools[1].Undrain("a"))
			f.want(up, up, up)
		}},
		{"a decision is taken back during an absence", func(t *testing.T, f *fleet, name func(int, ...string)) {
			ok(t, f.pools[0].Off("a"))
			f.want(down, up, up)
			name(0, "b", "c")
			f.settle()
			if f.pools[0].Get("a") != nil {
				t.Fatal("a isn't removed")
			}
			ok(t, f.pools[1].Undrain("a"))
			f.want(up, up, up)
			name(0, "a", "b", "c")
			f.want(up, up, up)
		}},
		{"a weight is changed during an absence", func(t *testing.T, f *fleet, name func(int, ...string)) {
			ok(t, f.pools[0].Off("a"))
			f.settle()
			name(0, "b", "c")
			ok(t, f.pools[1].SetWeight("a", 7))
			f.settle()
			name(0, "a", "b", "c")
			f.want(down, up, up)
			for replica, pool := range f.pools {
				if w := pool.Get("a").Weight(); w != 7 {
					t.Errorf("replica %d has the weight %d, want 7", replica, w)
				}
			}
		}},
		{"an address changes during a drain", func(t *testing.T, f *fleet, name func(int, ...string)) {
			ok(t, f.pools[0].Drain("a", time.Minute))
			f.want(draining, up, up)
			since := f.pools[1].Get("a").Wish().Since
			name(0, "A", "b", "c")
			f.want(draining, up, up)
			for replica, pool := range f.pools {
				if w := pool.Get("a").Wish(); !w.Since.Equal(since) {
					t.Errorf("replica %d has a drain since %v, want %v", replica, w.Since, since)
				}
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, 0)
				var feeds []feed
				name := func(replica int, ids ...string) {
					var targets []balancer.Target
					for _, id := range ids {
						url := "http://127.0.0.1:1"
						if id == "A" { // a at another address
							id, url = "a", "http://127.0.0.1:2"
						}
						targets = append(targets, balancer.Target{ID: id, URL: url})
					}
					feeds[replica] <- targets
					synctest.Wait()
				}
				for replica := range 2 {
					feeds = append(feeds, follow(t, f.start(nil)))
					name(replica, "a", "b", "c")
				}
				f.want(up, up, up)
				tt.test(t, f, name)
			})
		})
	}
}

// Tunnels leave a backend that its source drains as they leave one that the operator drains.
func TestSourceDrainsTunnels(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, echo)
	var old *balancer.Backend
	for b := range pool.All() {
		old = b
	}
	target := balancer.Target{ID: old.ID(), URL: old.URL().String(), Within: time.Hour}
	ok(t, pool.Remove(old.ID()))
	source := follow(t, pool)
	added := make(chan struct{}, 1)
	defer pool.OnChange(func(balancer.Change) {
		select {
		case added <- struct{}{}:
		default:
		}
	})()
	source <- []balancer.Target{target}
	<-added
	srv, _ := serve(t, pool, nil)
	conn, _ := dial(t, newClient(t), srv)
	talk(t, conn)

	target.Draining = true
	source <- []balancer.Target{target}
	talk(t, conn) // the hour has just begun
	target.Within = time.Second
	source <- []balancer.Target{target}
	var end websocket.CloseError
	if _, _, err := conn.Read(t.Context()); !errors.As(err, &end) || end.Code != websocket.StatusServiceRestart || end.Reason != "backend is drained" {
		t.Errorf("read %v, want 1012 before the end of the drain", err)
	}
}
