package affinity_test

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/limpet-go/limpet/affinity"
)

// games is an affinity of your own: all players of a game go to the backend that
// opened it. That backend names the game in a field of its answer, and players name
// the game in a query parameter.
type games struct{ homes affinity.LRU }

func (g *games) Find(r *http.Request) (affinity.Pin, error) {
	game := r.URL.Query().Get("game")
	if game == "" {
		return affinity.Pin{}, nil
	}
	pin := affinity.Pin{Key: game, Status: affinity.Unknown}
	home, err := g.homes.Load(r.Context(), game)
	if home != "" {
		pin.Backend, pin.Status = home, affinity.Hit
	}
	return pin, err
}

func (g *games) Bind(a affinity.Answer) (key string, err error) {
	game := a.Response.Header.Get("Game-Opened")
	if game == "" {
		return a.Found.Key, nil
	}
	// The game exists at the backend that answered, even if that only stood in.
	_, err = g.homes.Swap(a.Request.Context(), game, "", cmp.Or(a.StandIn, a.Home))
	return game, err
}

// An affinity of your own.
func ExampleAffinity() {
	var byGame affinity.Affinity = &games{}

	// node-2 opens a game.
	r := httptest.NewRequest("POST", "/games", nil)
	found, _ := byGame.Find(r)
	res := &http.Response{Header: http.Header{"Game-Opened": {"chess-7"}}}
	key, _ := byGame.Bind(affinity.Answer{Response: res, Request: r, Found: found, Home: "node-2"})
	fmt.Printf("%v, now with the key %q\n", found.Status, key)

	// A player of the game comes.
	found, _ = byGame.Find(httptest.NewRequest("GET", "/play?game=chess-7", nil))
	fmt.Printf("%v, home %q\n", found.Status, found.Backend)
	// Output:
	// none, now with the key "chess-7"
	// hit, home "node-2"
}

// A cookie with a proxy of your own, httputil.ReverseProxy here, and no gateway.
func ExampleCookie() {
	nodes := map[string]*httptest.Server{}
	for _, id := range []string{"node-1", "node-2"} {
		nodes[id] = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s sees %d cookies", id, len(r.Cookies()))
		}))
		defer nodes[id].Close()
	}

	secret := sha256.Sum256([]byte("in production: 32 random bytes that all replicas have"))
	cookie := &affinity.Cookie{Secrets: [][]byte{secret[:]}, Idle: time.Hour}
	newcomers := "node-2" // where new clients go: choose as you like

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
				_, err := cookie.Bind(affinity.Answer{Response: res, Request: r, Found: found, Home: home})
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

// Users are recognized by their ID. Those without one are placed by their address.
func ExampleChain() {
	chain := affinity.Chain{
		&affinity.Table{Key: affinity.Query("user")},
		&affinity.Hash{Key: &affinity.ClientAddr{V4: 24}},
	}
	answer := func(url string) affinity.Pin {
		r := httptest.NewRequest("GET", url, nil)
		found, _ := chain.Find(r)
		_, _ = chain.Bind(affinity.Answer{Response: &http.Response{Header: http.Header{}}, Request: r, Found: found, Home: "node-2"})
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

// This is `map $cookie_server $backend { default a; 2 b; }` of nginx.
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

// This is `cookie io prefix` of HAProxy: the application's own cookie gets the
// backend's name, and the application doesn't notice.
func ExampleAppCookie() {
	io := &affinity.AppCookie{Name: "io", Prefix: true}

	r := httptest.NewRequest("GET", "/", nil)
	res := &http.Response{Header: http.Header{}}
	res.Header.Set("Set-Cookie", "io=Sz9WZdE3; Path=/; HttpOnly")
	_, _ = io.Bind(affinity.Answer{Response: res, Request: r, Home: "node-2"})
	fmt.Println(res.Header.Get("Set-Cookie"))

	r = httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Cookie", "theme=dark; io=node-2~Sz9WZdE3")
	found, _ := io.Find(r)
	io.Rewrite(r, found)
	fmt.Println(found.Backend, r.Header.Get("Cookie"))
	// Output:
	// io=node-2~Sz9WZdE3; Path=/; HttpOnly
	// node-2 theme=dark; io=Sz9WZdE3
}

// This is `sticky learn create=$upstream_cookie_sid lookup=$cookie_sid zone=sid:1m
// timeout=1h` of nginx.
func ExampleAppCookie_learn() {
	sid := &affinity.AppCookie{Name: "sid", Store: &affinity.LRU{Idle: time.Hour}}

	r := httptest.NewRequest("POST", "/login", nil)
	res := &http.Response{Header: http.Header{}}
	res.Header.Set("Set-Cookie", "sid=5f0c; Secure; HttpOnly")
	_, _ = sid.Bind(affinity.Answer{Response: res, Request: r, Home: "node-2"})
	fmt.Println(res.Header.Get("Set-Cookie"))

	r = httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Cookie", "sid=5f0c")
	found, _ := sid.Find(r)
	fmt.Println(found.Backend, found.Status)
	// Output:
	// sid=5f0c; Secure; HttpOnly
	// node-2 hit
}

// This is `ProxySet stickysession=JSESSIONID|jsessionid` of Apache, with the routes
// tomcat1 and tomcat2 of its BalancerMembers.
func ExampleRoute() {
	java := &affinity.Route{
		Cookie: "JSESSIONID", Param: "jsessionid",
		Backends: map[string]string{"tomcat1": "node-1", "tomcat2": "node-2"},
	}
	for _, url := range []string{"/chat;jsessionid=9A3F.tomcat2", "/chat;jsessionid=9A3F.tomcat7", "/chat"} {
		found, _ := java.Find(httptest.NewRequest("GET", url, nil))
		fmt.Printf("%q %v\n", found.Backend, found.Status)
	}
	// Output:
	// "node-2" hit
	// "" unknown
	// "" none
}

// This is `Header add Set-Cookie "ROUTEID=.%{BALANCER_WORKER_ROUTE}e; path=/"
// env=BALANCER_ROUTE_CHANGED` of Apache, with ProxySet stickysession=ROUTEID.
func ExampleRoute_set() {
	route := &affinity.Route{Cookie: "ROUTEID", Set: &http.Cookie{}}
	for _, cookie := range []string{"", "ROUTEID=.node-1", "ROUTEID=.node-2"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Cookie", cookie)
		found, _ := route.Find(r)
		res := &http.Response{Header: http.Header{}}
		_, _ = route.Bind(affinity.Answer{Response: res, Request: r, Found: found, Home: "node-1"})
		fmt.Printf("%q\n", res.Header.Get("Set-Cookie"))
	}
	// Output:
	// "ROUTEID=.node-1; Path=/"
	// ""
	// "ROUTEID=.node-1; Path=/"
}

// This is `stick on req.cook(PHPSESSID)` of HAProxy with a stick-table `type string
// size 200k expire 30m`.
func ExampleCookieValue() {
	table := &affinity.Table{
		Key:   affinity.CookieValue("PHPSESSID"),
		Store: &affinity.LRU{Size: 200_000, Idle: 30 * time.Minute},
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Cookie", "PHPSESSID=el4ukv0kqbvoirg7nkp4dncpk3")
	for range 2 {
		found, _ := table.Find(r)
		_, _ = table.Bind(affinity.Answer{Response: &http.Response{Header: http.Header{}}, Request: r, Found: found, Home: "node-2"})
		fmt.Printf("%v %q\n", found.Status, found.Backend)
	}
	// Output:
	// none ""
	// hit "node-2"
}

// For Socket.IO clients that keep no cookies, the node's session ID gets a tag on
// its way to the client, which is removed on its way back.
func ExampleEngineIO() {
	secret := sha256.Sum256([]byte("in production: 32 random bytes that all replicas have"))
	sessions := &affinity.EngineIO{Secrets: [][]byte{secret[:]}}

	// node-2 has opened a session.
	r := httptest.NewRequest("GET", "/socket.io/?EIO=4&transport=polling", nil)
	found, _ := sessions.Find(r)
	res := &http.Response{
		StatusCode: 200, Header: http.Header{}, ContentLength: -1,
		Body: io.NopCloser(strings.NewReader(`0{"sid":"lv_VI97HAXpY6yYWAAAC","upgrades":["websocket"]}`)),
	}
	sessions.Bind(affinity.Answer{Response: res, Request: r, Found: found, Home: "node-2"})
	var opened struct{ SID string }
	body, _ := io.ReadAll(res.Body)
	json.Unmarshal(body[1:], &opened)
	fmt.Println("the client's sid:", len(opened.SID), "characters")

	// The client comes back to any replica.
	r = httptest.NewRequest("GET", "/socket.io/?EIO=4&transport=polling&sid="+opened.SID, nil)
	found, _ = sessions.Find(r)
	sessions.Rewrite(r, found)
	fmt.Println("goes to", found.Backend, "as", r.URL)

	// Output:
	// the client's sid: 45 characters
	// goes to node-2 as /socket.io/?EIO=4&transport=polling&sid=lv_VI97HAXpY6yYWAAAC
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
