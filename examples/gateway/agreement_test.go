package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/exampletest"
	"github.com/limpet-go/limpet/internal/process"
	"github.com/limpet-go/limpet/internal/redistest"
)

// Users each send many requests at once, through any of three replicas, while
// the home of some is killed: each user ends on one backend. Replicas that see
// the same backends send nobody anywhere else meanwhile; those that don't need a
// common store.
func TestAgreement(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, affinity string
		redis, differ  bool // there is a store; the replicas' views of the backends differ
	}{
		{"cookie", "cookie", false, false},
		{"hash", "header:User", false, false},
		{"store", "appcookie:sid", true, false},
		{"store, and views differ", "appcookie:sid", true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			backends := make(map[string]*exampletest.Backend)
			// Seldom enough that no view differs since a busy machine was slow
			// to answer a check.
			flags := []string{"-listen", "127.0.0.1:0", "-health-interval", "4s", "-affinity", tt.affinity}
			for _, id := range []string{"a", "b", "c", "d", "e"} {
				backends[id] = exampletest.StartBackend(t, id, func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/health" {
						if tt.differ {
							differ(w, id, r.URL.Query().Get("replica"))
						}
					} else if _, err := r.Cookie("sid"); err != nil {
						http.SetCookie(w, &http.Cookie{Name: "sid", Value: fmt.Sprint(rand.Uint64())})
					}
				})
				flags = append(flags, "-backend", backends[id].Spec())
			}
			hold := time.Duration(0)
			if tt.redis {
				flags = append(flags, "-redis", "redis://"+redistest.Start(t).Addr)
				hold = 1500 * time.Millisecond // a pin in memory may be a second old
			}
			c := &crowd{}
			for i, unlike := range []string{"backend=b .*to=draining", "backend=c .*to=draining", "backend=d .*to=down"} {
				g := gateway(t, []string{"LIMPET_KEYS=" + strings.Repeat("5eed", 16)},
					append(slices.Clone(flags), "-health", fmt.Sprint("/health?replica=", i))...)
				c.replicas = append(c.replicas, "http://"+address(t, g))
				if tt.differ {
					g.AwaitLine(t, unlike)
				}
			}
			c.join(t, 24)
			c.settle(t, hold)
			population := make(map[string]int)
			for _, u := range c.users {
				population[u.home]++
			}
			victim := slices.MaxFunc(slices.Collect(maps.Keys(population)), func(x, y string) int { return population[x] - population[y] })

			c.rush(t, backends[victim].Kill)
			before := make(map[*user]string)
			for _, u := range c.users {
				before[u] = u.home
			}
			c.settle(t, hold)
			strays := 0
			for _, u := range c.users {
				if before[u] != victim {
					if u.home != before[u] || len(u.seen) > 1 {
						t.Errorf("%s was at %s, which lives, was answered by %v and is at %s", u.name, before[u], u.seen, u.home)
					}
					continue
				}
				delete(u.seen, victim)
				delete(u.seen, u.home)
				if len(u.seen) > 0 {
					strays++
					if !tt.differ {
						t.Errorf("%s moved from %s to %s, and was answered by %v too", u.name, victim, u.home, u.seen)
					}
				}
			}
			t.Logf("%d of %d users moved from %s, %d of them over a third backend", population[victim], len(c.users), victim, strays)
		})
	}
}

// differ is what the health page of a backend says to a replica.
func differ(w http.ResponseWriter, backend, replica string) {
	switch backend + replica {
	case "b0", "c1":
		w.WriteHeader(http.StatusServiceUnavailable) // takes no new clients there
	case "d2":
		panic(http.ErrAbortHandler) // is Down
	}
}

// A crowd is users of several replicas, to any of which they send each request.
type crowd struct {
	replicas []string // URLs
	users    []*user
}

type user struct {
	*http.Client
	name string
	home string         // as settle has found
	seen map[string]int // who answered in the rush, and how often
}

// join makes new users, with a first request each: until it is answered, a user
// could be several.
func (c *crowd) join(t *testing.T, n int) {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	for i := range n {
		jar, _ := cookiejar.New(nil)
		u := &user{Client: &http.Client{Jar: jar, Transport: transport}, name: fmt.Sprint("user-", i), seen: make(map[string]int)}
		c.ask(t, u)
		c.users = append(c.users, u)
	}
}

// ask sends one request and returns the backend that answered.
func (c *crowd) ask(t *testing.T, u *user) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", c.replicas[rand.IntN(len(c.replicas))], nil)
	if err != nil {
		t.Error(err)
		return ""
	}
	req.Header.Set("User", u.name)
	res, err := u.Do(req)
	if err != nil {
		t.Error(err)
		return ""
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("%s: %s", u.name, res.Status)
	}
	return res.Header.Get("Backend")
}

// settle waits until all requests of each user are answered by one backend,
// the user's home then, and stay so for as long as hold.
func (c *crowd) settle(t *testing.T, hold time.Duration) {
	t.Helper()
	var wg sync.WaitGroup
	for _, u := range c.users {
		wg.Go(func() {
			start := time.Now()
			for since := start; ; {
				var answers [8]string
				var round sync.WaitGroup
				for i := range answers {
					round.Go(func() { answers[i] = c.ask(t, u) })
				}
				round.Wait()
				stays := true
				for _, home := range answers {
					if home != u.home {
						u.home, since, stays = home, time.Now(), false
					}
				}
				switch {
				case t.Failed(), stays && time.Since(since) >= hold:
					return
				case time.Since(start) > process.Patience:
					t.Errorf("%s doesn't settle: %v", u.name, answers)
					return
				}
			}
		})
	}
	wg.Wait()
}

// rush has all users send many requests at once and calls kill in their midst.
func (c *crowd) rush(t *testing.T, kill func()) {
	t.Helper()
	const workers, requests = 4, 50
	var mu sync.Mutex // of what users have seen
	var sent atomic.Int32
	var wg sync.WaitGroup
	for _, u := range c.users {
		for range workers {
			wg.Go(func() {
				for range requests {
					if int(sent.Add(1)) == len(c.users)*workers*requests/3 {
						kill()
					}
					backend := c.ask(t, u)
					mu.Lock()
					u.seen[backend]++
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
}
