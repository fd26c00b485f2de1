//go:build unix

package middleware_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/redistest"
	limpet "github.com/limpet-go/limpet/middleware"
)

// replica starts a gateway that shares its table of users with others, and
// returns its URL and its store.
func replica(t *testing.T, server *redistest.Server, pool *balancer.Pool, timeout time.Duration) (string, *affinity.Redis) {
	t.Helper()
	store := &affinity.Redis{Client: server.Client(t), Timeout: timeout, Fresh: -1, Logger: slog.New(slog.DiscardHandler)}
	srv, _ := serve(t, pool, &limpet.Options{Affinity: &affinity.Table{Key: affinity.Query("user"), Store: store}})
	return srv.URL, store
}

// ask returns the node that answers this user, and fails the test when none does.
func ask(t *testing.T, c *http.Client, url, user string) string {
	t.Helper()
	res, err := c.Get(url + "/?user=" + user)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer res.Body.Close()
	node, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("user %s: status %d, %v", user, res.StatusCode, err)
	}
	return string(node)
}

// Redis is killed, restarted, stopped and put to sleep under the requests of
// two replicas: none fails, and nobody leaves the home that he has.
func TestRedisGoesAway(t *testing.T) {
	t.Parallel()
	const users, workers = 30, 4
	server := redistest.Start(t)
	admin := server.Client(t)
	nodes := make(map[string]*node)
	for _, id := range []string{"a", "b", "c"} {
		nodes[id] = newNode(t, id, nil)
	}
	var pools []*balancer.Pool
	var urls []string
	var stores []*affinity.Redis
	for range 2 {
		pool := poolOf(t, nil, nodes)
		url, store := replica(t, server, pool, 0)
		pools, urls, stores = append(pools, pool), append(urls, url), append(stores, store)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 2 * workers}
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport}

	// All users live at a, the only node at first. Once there are others, one
	// whose pin is lost would be placed anew, most likely elsewhere.
	for _, pool := range pools {
		off(t, pool, "b")
		off(t, pool, "c")
	}
	for i := range users {
		for _, url := range urls {
			ask(t, c, url, fmt.Sprint(i))
		}
	}
	for _, pool := range pools {
		serveAgain(t, pool, "b")
		serveAgain(t, pool, "c")
	}

	var served atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for n := w; ctx.Err() == nil; n++ {
				i := n % users
				if home := ask(t, c, urls[n/users%len(urls)], fmt.Sprint(i)); home != "a" {
					t.Errorf("user %d is at %q", i, home)
				}
				// Newcomers have to be served too.
				ask(t, c, urls[w%len(urls)], fmt.Sprint("new", w, "-", n))
				served.Add(1)
			}
		})
	}
	more := func(n int64) {
		goal := served.Load() + n
		eventually(t, "requests to be served", func() bool { return served.Load() >= goal })
	}
	back := func() {
		for _, store := range stores {
			eventually(t, "Redis to be noticed", func() bool {
				_, err := store.Load(t.Context(), "nobody")
				return err == nil
			})
		}
	}
	more(200)
	server.Kill()
	more(200)
	server.Restart(t) // empty
	back()
	more(200)
	server.Signal(t, syscall.SIGSTOP)
	more(200)
	server.Signal(t, syscall.SIGCONT)
	back()
	more(200)
	sleep, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	_ = admin.Do(sleep, "DEBUG", "SLEEP", "1").Err() // the answer comes after it
	cancel()
	more(200)
	back()
	more(200)
	stop()
	wg.Wait()
	t.Logf("%d requests served", 2*served.Load())
}

// Replicas that would place a client on different nodes agree by Swap on the
// one that was first.
func TestReplicasWithDifferentViewsAgree(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	arrived, release := make(chan string), map[string]chan bool{"a": make(chan bool), "b": make(chan bool)}
	pool, nodes := cluster(t, 2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if id := w.Header().Get("Node"); r.URL.Query().Has("hold") {
			arrived <- id
			<-release[id]
		}
		sayNode(w, r)
	}))
	// Each keeps what is pinned to either node. The first places new clients
	// on a, the second on b, the third on both.
	var urls []string
	for i, pool := range []*balancer.Pool{pool, poolOf(t, nil, nodes), poolOf(t, nil, nodes)} {
		if i < 2 {
			if err := pool.Drain([]string{"b", "a"}[i], 0); err != nil {
				t.Fatal(err)
			}
		}
		url, _ := replica(t, server, pool, patience)
		urls = append(urls, url)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport}
	for i, first := range []string{"a", "b", "a", "b"} {
		user := fmt.Sprint("user-", i)
		answers := map[string]chan string{"a": make(chan string, 1), "b": make(chan string, 1)}
		for n, id := range []string{"a", "b"} {
			go func() { answers[id] <- ask(t, c, urls[n], user+"&hold") }()
		}
		<-arrived // both are under way: no one knew of the other
		<-arrived
		for _, id := range []string{first, map[string]string{"a": "b", "b": "a"}[first]} {
			release[id] <- true
			if node := <-answers[id]; node != id {
				t.Errorf("%s is answered by %q, want %q", user, node, id)
			}
		}
		for n, url := range urls {
			if home := ask(t, c, url, user); home != first {
				t.Errorf("%s is at %q by replica %d, want %q", user, home, n, first)
			}
		}
	}
}

func off(t *testing.T, pool *balancer.Pool, id string) {
	t.Helper()
	if err := pool.Off(id); err != nil {
		t.Fatal(err)
	}
}

func serveAgain(t *testing.T, pool *balancer.Pool, id string) {
	t.Helper()
	if err := pool.Undrain(id); err != nil {
		t.Fatal(err)
	}
}
