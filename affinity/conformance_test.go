package affinity_test

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/affinity/affinitytest"
)

var testSecrets = [][]byte{[]byte("each limpet comes home to the scar that it has ground")}

func TestConformance(t *testing.T) {
	t.Parallel()
	const idle = time.Minute
	cookie := func() *affinity.Cookie { return &affinity.Cookie{Secrets: testSecrets, Idle: idle} }
	tls := func(*http.Request) bool { return true }
	learnt := &affinity.LRU{}

	for _, tt := range []struct {
		name string
		// newWorld returns a function that makes replicas, which share their stores.
		newWorld func() func() affinity.Affinity
		opts     affinitytest.Options
	}{
		{"Cookie", func() func() affinity.Affinity {
			return func() affinity.Affinity { return cookie() }
		}, affinitytest.Options{Remembers: true, Sealed: true, Idle: idle}},

		{"Cookie over TLS", func() func() affinity.Affinity {
			return func() affinity.Affinity {
				c := cookie()
				c.OverTLS = tls
				return c
			}
		}, affinitytest.Options{Remembers: true, Sealed: true, Idle: idle, Cookies: []string{"limpet"}}},

		{"CookieMap", func() func() affinity.Affinity {
			return func() affinity.Affinity {
				return &affinity.CookieMap{Name: "server", Backends: map[string]string{"1": "b1"}, Default: "b2"}
			}
		}, affinitytest.Options{Cookies: []string{"server"}}},

		{"Hash", func() func() affinity.Affinity {
			return func() affinity.Affinity { return &affinity.Hash{Key: affinity.Query("client")} }
		}, affinitytest.Options{}},

		{"Table", func() func() affinity.Affinity {
			lru := &affinity.LRU{Idle: idle}
			return func() affinity.Affinity { return &affinity.Table{Store: lru} }
		}, affinitytest.Options{Remembers: true, Idle: idle}},

		{"AppCookie", func() func() affinity.Affinity {
			lru := &affinity.LRU{Idle: idle}
			return func() affinity.Affinity { return &affinity.AppCookie{Name: "session", Store: lru} }
		}, affinitytest.Options{Remembers: true, Idle: idle, Answer: session(false)}},

		{"AppCookie with a prefix", func() func() affinity.Affinity {
			return func() affinity.Affinity { return &affinity.AppCookie{Name: "session", Prefix: true} }
		}, affinitytest.Options{Remembers: true, Answer: session(true)}},

		{"AppCookie with a sealed prefix", func() func() affinity.Affinity {
			return func() affinity.Affinity {
				return &affinity.AppCookie{Name: "session", Prefix: true, Secrets: testSecrets}
			}
		}, affinitytest.Options{Remembers: true, Answer: session(true)}},

		{"Route of the application", func() func() affinity.Affinity {
			return func() affinity.Affinity { return &affinity.Route{Cookie: "JSESSIONID", Param: "jsessionid"} }
		}, affinitytest.Options{Remembers: true, Answer: container}},

		{"Route set by Limpet", func() func() affinity.Affinity {
			return func() affinity.Affinity { return &affinity.Route{Cookie: "ROUTEID", Set: &http.Cookie{}} }
		}, affinitytest.Options{Remembers: true}},

		{"Table of a cookie", func() func() affinity.Affinity {
			lru := &affinity.LRU{Idle: idle}
			return func() affinity.Affinity {
				return &affinity.Table{Key: affinity.CookieValue("session"), Store: lru}
			}
		}, affinitytest.Options{Remembers: true, Idle: idle, Request: func(n int) *http.Request {
			return get("/", fmt.Sprint("session=", n))
		}}},

		{"EngineIO of sessions with a tag", func() func() affinity.Affinity {
			return func() affinity.Affinity { return &affinity.EngineIO{Secrets: testSecrets} }
		}, affinitytest.Options{Request: openSession(t, "4", &affinity.EngineIO{Secrets: testSecrets})}},

		{"EngineIO of sessions that are learnt", func() func() affinity.Affinity {
			return func() affinity.Affinity { return &affinity.EngineIO{Store: learnt} }
		}, affinitytest.Options{Request: openSession(t, "3", &affinity.EngineIO{Store: learnt})}},

		{"EngineIO before a Cookie", func() func() affinity.Affinity {
			return func() affinity.Affinity { return affinity.Chain{&affinity.EngineIO{Secrets: testSecrets}, cookie()} }
		}, affinitytest.Options{Remembers: true, Idle: idle, Request: func(int) *http.Request { return opens("4") }}},

		{"Chain", func() func() affinity.Affinity {
			lru := &affinity.LRU{Idle: idle}
			return func() affinity.Affinity {
				return affinity.Chain{cookie(), &affinity.Table{Key: affinity.Header("Client"), Store: lru}, &affinity.Hash{}}
			}
		}, affinitytest.Options{Remembers: true, Idle: idle}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			affinitytest.TestAffinity(t, tt.newWorld(), tt.opts)
		})
	}
}

// openSession returns requests of sessions that were opened through e. These can't move.
func openSession(t *testing.T, eio string, e *affinity.EngineIO) func(n int) *http.Request {
	return func(n int) *http.Request {
		opening := bound(t, e, answer(opens(eio), strings.NewReader(fmt.Sprintf(`0{"sid":"s%d"}`, n)), -1), "b1")
		return polls(eio, strings.TrimSuffix(strings.TrimPrefix(opening, `0{"sid":"`), `"}`))
	}
}

// session is an application that sets a cookie for clients without one. If it
// rolls, it sets the same cookie on each answer.
func session(rolls bool) func(*http.Request, string, *http.Response) {
	return func(out *http.Request, _ string, res *http.Response) {
		value := rand.Text()
		if c, err := out.Cookie("session"); err == nil && c.Value != "" {
			if !rolls {
				return
			}
			value = c.Value
		}
		if out.Method != http.MethodOptions {
			res.Header.Add("Set-Cookie", "session="+value+"; HttpOnly")
		}
	}
}

// container is a servlet container that knows its route. It also puts the route
// into session IDs that another one has made.
func container(out *http.Request, home string, res *http.Response) {
	id := rand.Text()
	if c, err := out.Cookie("JSESSIONID"); err == nil {
		if session, route, _ := strings.Cut(c.Value, "."); route == home {
			return
		} else if session != "" {
			id = session
		}
	}
	if out.Method != http.MethodOptions {
		res.Header.Add("Set-Cookie", "JSESSIONID="+id+"."+home+"; Path=/")
	}
}

func TestStoreConformance(t *testing.T) {
	t.Parallel()
	for _, size := range []int{100, 10_000} {
		t.Run(fmt.Sprint("LRU of ", size), func(t *testing.T) {
			t.Parallel()
			lru := &affinity.LRU{Size: size}
			affinitytest.TestStore(t, func() affinity.Store { return lru })
		})
	}
}
