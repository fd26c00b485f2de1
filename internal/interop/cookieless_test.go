package interop_test

import (
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/limpet-go/limpet/internal/interop"
	"github.com/limpet-go/limpet/internal/redistest"
)

// replicaKey is what the gateways of a test have in common.
var replicaKey = strings.Repeat("5eed", 16)

// Clients without a cookie jar, each of whose requests takes a gateway at random,
// stay on their nodes. When a gateway is killed, those are disturbed whose
// connections it had, and no others.
func TestCookielessClientsStay(t *testing.T) {
	for _, v := range versions { // one after the other: a gateway gives Redis 50 ms to answer
		t.Run(string(v), func(t *testing.T) {
			cluster := interop.Start(t, v, 3)
			for name, transports := range map[string][]string{"polling": polling, "polling then upgrade": upgrade} {
				t.Run(name, func(t *testing.T) { testCookieless(t, cluster, transports) })
			}
		})
	}
}

func testCookieless(t *testing.T, cluster *interop.Cluster, transports []string) {
	front := newSplitter(t)
	flags := []string{"-affinity", "engineio", "-key", replicaKey}
	if cluster.Version == interop.V2 { // its sids are learnt
		flags = append(flags, "-redis", "redis://"+redistest.Start(t).Addr)
	}
	for range 2 {
		front.add(t, interop.StartGateway(t, cluster, flags...))
	}
	s := front.join(t, cluster, 50, transports)
	s.stayed(t, transports)

	cut := front.kill(0)
	if len(cut) == 0 || len(cut) == len(s.names) {
		t.Fatalf("%d of %d clients had a connection through the gateway that is killed", len(cut), len(s.names))
	}
	s.Await(t, "the return of those that were cut off", func(events []interop.Event) bool {
		connects := make(map[string]int)
		for _, e := range events {
			if e.Event == "connect" {
				connects[e.Client]++
			}
		}
		return !slices.ContainsFunc(cut, func(client string) bool { return connects[client] < 2 })
	})
	s.Ask(t, s.names, "echo", "still there?")
	for _, e := range slices.Concat(s.Events("disconnect"), s.Events("refused")) {
		if !slices.Contains(cut, e.Client) {
			t.Errorf("%s was not cut off: %+v", e.Client, e)
		}
	}
	front.join(t, cluster, 50, transports).stayed(t, transports)
}

// A splitter is a load balancer that knows nothing: each request goes to one of
// the gateways at random.
type splitter struct {
	*httptest.Server

	mu       sync.Mutex
	gateways []*replica
}

type replica struct {
	*interop.Gateway
	proxy   *httputil.ReverseProxy
	dead    bool
	serving map[*http.Request]string // the clients whose requests and tunnels it has
}

func newSplitter(t *testing.T) *splitter {
	s := &splitter{}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *splitter) add(t *testing.T, g *interop.Gateway) {
	t.Helper()
	target, err := url.Parse(g.URL)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	s.gateways = append(s.gateways, &replica{
		Gateway: g,
		serving: make(map[*http.Request]string),
		proxy: &httputil.ReverseProxy{
			Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
			Transport:     transport,
			FlushInterval: -1,
			ErrorLog:      log.New(io.Discard, "", 0),
		},
	})
}

func (s *splitter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	living := slices.DeleteFunc(slices.Clone(s.gateways), func(g *replica) bool { return g.dead })
	g := living[rand.IntN(len(living))]
	g.serving[r] = r.URL.Query().Get("client")
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(g.serving, r)
	}()
	g.proxy.ServeHTTP(w, r)
}

// kill kills a gateway and returns the clients that it cut off.
func (s *splitter) kill(i int) (cut []string) {
	g := s.gateways[i]
	s.mu.Lock()
	g.dead = true
	for _, client := range g.serving {
		cut = append(cut, client)
	}
	s.mu.Unlock()
	g.Kill()
	slices.Sort(cut)
	return slices.Compact(cut)
}

// join connects clients without cookies through the splitter.
func (s *splitter) join(t *testing.T, cluster *interop.Cluster, n int, transports []string) *scene {
	t.Helper()
	clients := &scene{
		Clients: interop.StartClients(t, cluster.Version),
		version: cluster.Version,
		gateway: &interop.Gateway{Process: s.gateways[0].Process, URL: s.URL},
	}
	// In small groups: these are many processes on few processors.
	for i := 0; i < n; i += 10 {
		clients.join(t, fmt.Sprintf("client%d-", i/10), min(10, n-i), func(_ int, c *interop.Client) {
			c.Cookies = false
			c.Options["transports"] = transports
		})
	}
	return clients
}

// What real nodes say when a session opens is understood in all its forms, and
// when its node is gone the gateway says what a node would say.
func TestSessionsByHand(t *testing.T) {
	each(t, func(t *testing.T, v interop.Version) {
		cluster := interop.Start(t, v, 3)
		gateway := interop.StartGateway(t, cluster, "-affinity", "engineio", "-key", replicaKey)
		forms := []string{"EIO=4&transport=polling"}
		if v == interop.V2 {
			forms = []string{"EIO=3&transport=polling", "EIO=3&transport=polling&b64=1", "EIO=3&transport=polling&j=0"}
		}
		var sessions []string // each node has one of each form
		for _, form := range forms {
			for range cluster.Nodes {
				res, body := do(t, "GET", gateway.URL, form, "", http.Header{})
				sid := regexp.MustCompile(`sid\\?":\\?"([^"\\]+)`).FindStringSubmatch(body)
				if res.StatusCode != 200 || sid == nil {
					t.Fatalf("%s: %d %q", form, res.StatusCode, body)
				}
				sessions = append(sessions, form+"&sid="+url.QueryEscape(sid[1]))
			}
		}
		ping := func(session string) (*http.Response, string) {
			packet, kind := "3", "text/plain;charset=UTF-8"
			switch {
			case strings.Contains(session, "j=0"):
				packet, kind = "d=1:2", "application/x-www-form-urlencoded"
			case v == interop.V2:
				packet = "1:2"
			}
			return do(t, "POST", gateway.URL, session, packet, http.Header{"Content-Type": {kind}})
		}
		for _, session := range sessions {
			for range 3 {
				if res, body := ping(session); res.StatusCode != 200 || body != "ok" {
					t.Errorf("%s: %d %q", session, res.StatusCode, body)
				}
			}
		}

		cluster.Nodes[0].Kill()
		gateway.AwaitLine(t, "backend=node1 .*to=down")
		var gone []string
		for _, session := range sessions {
			if res, _ := ping(session); res.StatusCode != 200 {
				gone = append(gone, session)
			}
		}
		if len(gone) != len(forms) {
			t.Fatalf("%d sessions are gone, want %d", len(gone), len(forms))
		}
		origin := http.Header{"Origin": {"https://app.example"}}
		for _, tt := range []struct {
			name, method string
			header       http.Header
		}{
			{"poll", "GET", http.Header{}},
			{"packet", "POST", http.Header{}},
			{"WebSocket", "GET", handshake},
			{"poll from another site", "GET", origin},
		} {
			session := gone[0]
			if tt.name == "WebSocket" {
				session = strings.Replace(session, "polling", "websocket", 1)
			}
			got, body := do(t, tt.method, gateway.URL, session, "", tt.header)
			res, want := do(t, tt.method, cluster.Nodes[1].URL(), session, "", tt.header)
			if got.StatusCode != res.StatusCode || body != want || !strings.Contains(body, "Session ID unknown") {
				t.Errorf("%s: the gateway says %d %q, a node %d %q", tt.name, got.StatusCode, body, res.StatusCode, want)
			}
			fields := []string{"Content-Type", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials"}
			if tt.header.Get("Origin") != "" && v != interop.V2 {
				fields = fields[:1] // the rest is up to the package cors, which the nodes don't use
			}
			for _, field := range fields {
				if got.Header.Get(field) != res.Header.Get(field) {
					t.Errorf("%s: the gateway says %s: %q, a node %q", tt.name, field, got.Header.Get(field), res.Header.Get(field))
				}
			}
		}
	})
}

// handshake is the header of a WebSocket's.
var handshake = http.Header{
	"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
	"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
}

// do sends a request for Engine.IO and returns the answer with its body read.
func do(t *testing.T, method, base, query, body string, header http.Header) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, base+"/socket.io/?"+query, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(text)
}
