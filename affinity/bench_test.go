package affinity_test

import (
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/limpet-go/limpet/affinity"
)

func BenchmarkCookieFind(b *testing.B) {
	c := &affinity.Cookie{Secrets: testSecrets}
	value, _, _ := strings.Cut(bind(b, c, get("/"), affinity.Pin{}, "node-1").Get("Set-Cookie"), ";")
	for _, bm := range []struct{ name, cookies string }{
		{"hit", value},
		{"hit among 8 KiB", strings.Repeat("session=0123456789abcdefghijklmn; ", 240) + value},
		{"none", "session=0123456789abcdefghijklmn"},
		{"forged", "limpet=" + strings.Repeat("A", len(value)-7)},
	} {
		b.Run(bm.name, func(b *testing.B) {
			r := get("/", bm.cookies)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Find(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCookieBind(b *testing.B) {
	c := &affinity.Cookie{Secrets: testSecrets}
	r := get("/")
	b.ReportAllocs()
	for b.Loop() {
		bind(b, c, r, affinity.Pin{}, "node-1")
	}
}

func BenchmarkCookieRewrite(b *testing.B) {
	c := &affinity.Cookie{Secrets: testSecrets}
	out := get("/")
	lines := []string{"session=0123456789abcdefghijklmn; limpet=" + strings.Repeat("A", 90) + "; theme=dark"}
	b.ReportAllocs()
	for b.Loop() {
		out.Header["Cookie"] = lines
		c.Rewrite(out, affinity.Pin{})
	}
}

// A request, and an answer on which the application has not set the cookie.
func BenchmarkAppCookie(b *testing.B) {
	for _, bm := range []struct {
		name   string
		cookie *affinity.AppCookie
	}{
		{"learn", &affinity.AppCookie{Name: "io"}},
		{"prefix", &affinity.AppCookie{Name: "io", Prefix: true}},
		{"sealed prefix", &affinity.AppCookie{Name: "io", Prefix: true, Secrets: testSecrets}},
	} {
		b.Run(bm.name, func(b *testing.B) {
			set, _ := setCookies(b, bm.cookie, get("/"), affinity.Pin{}, "node-1", "io=0123456789abcdefghij")
			r, out := get("/", "theme=dark; "+set[0]), get("/")
			res := &http.Response{Header: http.Header{"Set-Cookie": {"theme=dark"}}, Request: r}
			b.ReportAllocs()
			for b.Loop() {
				found := find(b, bm.cookie, r)
				out.Header["Cookie"] = r.Header["Cookie"]
				bm.cookie.Rewrite(out, found)
				if _, err := bm.cookie.Bind(to("node-1", res, found)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRouteFind(b *testing.B) {
	route := &affinity.Route{Cookie: "JSESSIONID", Param: "jsessionid", Backends: map[string]string{"route1": "b1"}}
	for _, bm := range []struct{ name, url, cookies string }{
		{"cookie", "/chat?a=1", "a=1; JSESSIONID=0123456789ABCDEF0123456789ABCDEF.route1"},
		{"path", "/chat;jsessionid=0123456789ABCDEF0123456789ABCDEF.route1?a=1", "a=1"},
		{"none", "/chat?a=1", "a=1"},
		{"8 KiB of separators", "/", "JSESSIONID=" + strings.Repeat(".", 8192)},
	} {
		b.Run(bm.name, func(b *testing.B) {
			r := get(bm.url, bm.cookies)
			b.ReportAllocs()
			for b.Loop() {
				find(b, route, r)
			}
		})
	}
}

func BenchmarkTableFind(b *testing.B) {
	t := &affinity.Table{}
	r := get("/")
	bind(b, t, r, find(b, t, r), "node-1")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := t.Find(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLRULoadParallel(b *testing.B) {
	lru := &affinity.LRU{}
	keys := make([]string, 1024)
	for i := range keys {
		keys[i] = strconv.Itoa(i)
		if _, err := lru.Swap(b.Context(), keys[i], "", "node-1"); err != nil {
			b.Fatal(err)
		}
	}
	var next atomic.Uint32
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := next.Add(100); pb.Next(); i++ {
			if home, err := lru.Load(b.Context(), keys[i%1024]); home == "" || err != nil {
				b.Error(home, err)
			}
		}
	})
}
