package affinity_test

import (
	"crypto/sha256"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/limpet-go/limpet/affinity"
)

// The cookie in front of a proxy of your own, without a gateway.
func ExampleCookie() {
	nodes := map[string]*httptest.Server{}
	for _, id := range []string{"node-1", "node-2"} {
		nodes[id] = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s sees %d cookies", id, len(r.Cookies()))
		}))
		defer nodes[id].Close()
	}

	secret := sha256.Sum256([]byte("in earnest, 32 random bytes that all replicas have"))
	cookie := &affinity.Cookie{Keys: [][]byte{secret[:]}, Idle: time.Hour}
	newcomers := "node-2" // your own way to choose

	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		found, err := cookie.Find(r)
		if err != nil {
			log.Print(err)
		}
		home := found.Backend
		if nodes[home] == nil {
			home = newcomers
		}
		target, _ := url.Parse(nodes[home].URL)
		proxy := httputil.ReverseProxy{
			Rewrite: func(pr *httputil.ProxyRequest) {
				pr.SetURL(target)
				cookie.Rewrite(pr.Out, found)
			},
			ModifyResponse: func(res *http.Response) error {
				res.Request = r // Bind wants the client's request
				_, err := cookie.Bind(res, found, home)
				return err
			},
		}
		proxy.ServeHTTP(w, r)
	}))
	defer gateway.Close()

	first, body := visit(gateway.URL, "")
	fmt.Println(body)
	fmt.Println(first.Get("Cache-Control"))

	newcomers = "node-1"
	mark, _, _ := strings.Cut(first.Get("Set-Cookie"), ";")
	second, body := visit(gateway.URL, mark)
	fmt.Println(body)
	fmt.Printf("%q\n", second.Get("Set-Cookie"))
	// Output:
	// node-2 sees 0 cookies
	// private, no-store
	// node-2 sees 0 cookies
	// ""
}

// Users come home by their ID; those without one, by their address.
func ExampleChain() {
	chain := affinity.Chain{
		&affinity.Table{Key: affinity.Query("user")},
		&affinity.Hash{Key: &affinity.ClientAddr{V4: 24}},
	}
	answer := func(url string) affinity.Pin {
		r := httptest.NewRequest("GET", url, nil)
		found, _ := chain.Find(r)
		_, _ = chain.Bind(&http.Response{Header: http.Header{}, Request: r}, found, "node-2")
		return found
	}
	for _, url := range []string{"/?user=ann", "/?user=ann", "/"} {
		found := answer(url)
		fmt.Printf("%v, home %q, key %q\n", found.Status, found.Backend, found.Key)
	}
	// Output:
	// none, home "", key "ann"
	// hit, home "node-2", key "ann"
	// none, home "", key "192.0.2.0/24"
}

// What nginx writes as `map $cookie_server $backend { default a; 2 b; }`.
func ExampleCookieMap() {
	m := &affinity.CookieMap{Name: "server", Backends: map[string]string{"1": "a", "2": "b"}, Default: "a"}
	for _, cookie := range []string{"server=2", "server=9", ""} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Cookie", cookie)
		found, _ := m.Find(r)
		fmt.Println(found.Backend, found.Status)
	}
	// Output:
	// b hit
	// a unknown
	// a none
}

// Any function of the request can be a key.
func ExampleKeyFunc() {
	byTenant := affinity.KeyFunc(func(r *http.Request) string {
		tenant, _, _ := strings.Cut(r.Host, ".")
		return tenant
	})
	found, _ := (&affinity.Hash{Key: byTenant}).Find(httptest.NewRequest("GET", "http://acme.chat.example/", nil))
	fmt.Println(found.Key)
	// Output: acme
}

func ExampleLRU() {
	lru := &affinity.LRU{Size: 10_000, Idle: time.Hour}
	ctx := httptest.NewRequest("GET", "/", nil).Context()
	now, _ := lru.Swap(ctx, "ann", "", "node-1")
	fmt.Println(now)
	now, _ = lru.Swap(ctx, "ann", "", "node-2") // too late
	fmt.Println(now)
	// Output:
	// node-1
	// node-1
}

func visit(url, cookie string) (http.Header, string) {
	req, _ := http.NewRequest("GET", url, nil)
	if cookie != "" {
		req.Header.Set("Cookie", cookie)
	}
	tr := &http.Transport{DisableKeepAlives: true}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return nil, err.Error()
	}
	defer res.Body.Close()
	var body strings.Builder
	_ = res.Write(&body)
	_, text, _ := strings.Cut(body.String(), "\r\n\r\n")
	return res.Header, text
}
