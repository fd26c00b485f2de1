package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/exampletest"
	"github.com/limpet-go/limpet/internal/process"
	"github.com/limpet-go/limpet/internal/redistest"
)

// Many clients each send many requests at once, through any of three replicas,
// while the home of some is killed: each client ends on one backend. Replicas
// that see the same backends send the client nowhere else meanwhile; those that
// don't need a common store.
func TestAgreement(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		affinity    string
		redis       bool
		viewsDiffer bool
	}{
		{"cookie", "cookie", false, false},
		{"hash", "header:User", false, false},
		{"store", "appcookie:sid", true, false},
		{"store, and views differ", "appcookie:sid", true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			backends := make(map[string]*exampletest.Backend)
			// Seldom enough that a check which a busy machine was slow to answer
			// makes no view differ.
			args := []string{"-listen", "127.0.0.1:0", "-health-interval", "4s", "-affinity", tt.affinity}
			for _, id := range []string{"a", "b", "c", "d", "e"} {
				backends[id] = exampletest.StartBackend(t, id, func(w http.ResponseWriter, r *http.Request) {
					switch _, err := r.Cookie("sid"); {
					case r.URL.Path == "/health" && tt.viewsDiffer:
						differ(w, id, r.URL.Query().Get("replica"))
					case r.URL.Path == "/" && err != nil:
						http.SetCookie(w, &http.Cookie{Name: "sid", Value: fmt.Sprint(rand.Uint64())})
					}
				})
				args = append(args, "-backend", backends[id].Spec())
			}
			hold := time.Duration(0)
			if tt.redis {
				args = append(args, "-redis", "redis://"+redistest.Start(t).Addr)
				hold = 1500 * time.Millisecond // a pin in memory may be a second old
			}
			c := &crowd{}
			var gateways []*process.Process
			for i := range 3 {
				health := fmt.Sprint("/health?replica=", i)
				gateways = append(gateways, gateway(t, []string{"LIMPET_KEYS=" + fmt.Sprintf("%064d", 5)}, append(args, "-health", health)...))
			}
			for i, g := range gateways {
				c.replicas = append(c.replicas, "http://"+address(t, g))
				if tt.viewsDiffer {
					g.AwaitLine(t, []string{"backend=b .*to=draining", "backend=c .*to=draining", "backend=d .*to=down"}[i])
				}
			}

			transport := &http.Transport{MaxIdleConnsPerHost: 100}
			t.Cleanup(transport.CloseIdleConnections)
			population := make(map[string]int)
			for i := range 24 {
				jar, _ := cookiejar.New(nil)
				u := &user{name: fmt.Sprint("user-", i), Client: &http.Client{Jar: jar, Transport: transport}}
				c.ask(t, u) // the first one alone, or the client is several
				c.users = append(c.users, u)
			}
			c.settle(t, hold)
			for _, u := range c.users {
				population[u.home]++
			}
			victim := slices.MaxFunc(slices.Collect(maps.Keys(population)), func(x, y string) int { return population[x] - population[y] })

			seen := c.rush(t, backends[victim].Kill)
			before := make(map[*user]string)
			for _, u := range c.users {
				before[u] = u.home
			}
			c.settle(t, hold)
			strayed := 0
			for _, u := range c.users {
				others := maps.Clone(seen[u])
				delete(others, victim)
				delete(others, u.home)
				switch {
				case before[u] != victim && (u.home != before[u] || len(seen[u]) > 1):
					t.Errorf("%s was at %s all the time, is at %s now and was seen at %v", u.name, before[u], u.home, seen[u])
				case before[u] == victim && len(others) > 0 && !tt.viewsDiffer:
					t.Errorf("%s moved from %s to %s, but was seen at %v", u.name, victim, u.home, seen[u])
				}
				strayed += len(others)
			}
			t.Logf("%d of %d users moved from %s, %d were at a third backend meanwhile", population[victim], len(c.users), victim, strayed)
		})
	}
}

// differ is what the health page of a backend says to a replica.
func differ(w http.ResponseWriter, backend, replica string) {
	switch backend + replica {
	case "b0", "c1":
		w.WriteHeader(http.StatusServiceUnavailable) // sick: it keeps its clients there
	case "d2":
		panic(http.ErrAbortHandler) // Down
	}
}

// A crowd is users of several replicas. Each of their requests goes to any.
type crowd struct {
	replicas []string // URLs
	users    []*user
}

type user struct {
	*http.Client
	name string
	home string // as settle has found
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
			since := time.Now()
			for start := since; ; {
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
// It returns how often each user was answered by whom.
func (c *crowd) rush(t *testing.T, kill func()) map[*user]map[string]int {
	t.Helper()
	const workers, requests = 4, 50
	seen := make(map[*user]map[string]int)
	var mu sync.Mutex
	var sent atomic.Int32
	var wg sync.WaitGroup
	for _, u := range c.users {
		seen[u] = make(map[string]int)
		for range workers {
			wg.Go(func() {
				for range requests {
					if int(sent.Add(1)) == len(c.users)*workers*requests/3 {
						kill()
					}
					backend := c.ask(t, u)
					mu.Lock()
					seen[u][backend]++
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	return seen
}
