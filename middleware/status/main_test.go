package status_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/go-chi/chi/v5"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/leaktest"
	"github.com/limpet-go/limpet/internal/nodetest"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/middleware/status"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// patience bounds waits for what must happen; nothing is measured by it.
const patience = 10 * time.Second

var secrets = [][]byte{[]byte("each limpet comes home to the scar that it has ground")}

// newNode starts a backend that says who it is, and echoes on a WebSocket.
func newNode(t *testing.T, id string, h http.Handler) *nodetest.Node {
	t.Helper()
	return nodetest.New(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Node", id)
		switch {
		case r.Header.Get("Upgrade") != "":
			nodetest.Echo(w, r)
		case h != nil:
			h.ServeHTTP(w, r)
		default:
			io.Copy(io.Discard, r.Body)
			io.WriteString(w, id)
		}
	}))
}

// A rig is a gateway in front of nodes, with a status mounted at /limpet beside it.
type rig struct {
	t       *testing.T
	nodes   map[string]*nodetest.Node
	pool    *balancer.Pool
	gateway *limpet.Gateway
	status  *status.Handler
	srv     *httptest.Server
	mount   string // the status's, on srv
}

func newRig(t *testing.T, ids string, opts *status.Options, gatewayOpts *limpet.Options) *rig {
	t.Helper()
	g := &rig{t: t, nodes: make(map[string]*nodetest.Node), mount: "/limpet"}
	var err error
	if g.pool, err = balancer.NewPool(&balancer.Options{
		Check: &balancer.Check{Interval: 20 * time.Millisecond}, Logger: slog.New(slog.DiscardHandler),
	}); err != nil {
		t.Fatal(err)
	}
	for _, id := range strings.Fields(ids) {
		g.nodes[id] = newNode(t, id, nil)
		g.add(id, g.nodes[id].URL)
	}
	if gatewayOpts == nil {
		gatewayOpts = &limpet.Options{}
	}
	if gatewayOpts.Affinity == nil {
		gatewayOpts.Affinity = &affinity.Cookie{Secrets: secrets}
	}
	gatewayOpts.Logger = slog.New(slog.DiscardHandler)
	if g.gateway, err = limpet.NewGateway(g.pool, gatewayOpts); err != nil {
		t.Fatal(err)
	}
	if opts == nil {
		opts = &status.Options{}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	g.status = status.New(g.gateway, opts)
	r := chi.NewRouter()
	r.Mount("/limpet", g.status)
	r.NotFound(g.gateway.ServeHTTP)
	g.srv = httptest.NewServer(r)
	t.Cleanup(func() {
		g.status.Close()
		g.srv.Close()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = g.gateway.Shutdown(ctx)
	})
	return g
}

// everybody may steer.
func everybody(*http.Request) bool { return true }

// named is a status.Options.Who.
func named(name string) func(*http.Request) string {
	return func(*http.Request) string { return name }
}

// run has the gateway take part in its bus.
func (g *rig) run() { g.background(g.gateway.Run) }

// check has the pool check its backends.
func (g *rig) check() { g.background(g.pool.Run) }

func (g *rig) background(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	g.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			g.t.Error(err)
		}
	})
}

// get sends a request through the gateway.
func (g *rig) get(path string, fields ...string) *http.Response {
	g.t.Helper()
	req, err := http.NewRequestWithContext(g.t.Context(), "GET", g.srv.URL+path, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	for i := 0; i < len(fields); i += 2 {
		req.Header.Set(fields[i], fields[i+1])
	}
	res, err := g.srv.Client().Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	io.Copy(io.Discard, res.Body)
	return res
}

func (g *rig) add(id, url string) *balancer.Backend {
	g.t.Helper()
	b, err := balancer.NewBackend(id, url, 1)
	if err == nil {
		err = g.pool.Add(b)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	return b
}

// An answer is that of a call under api/.
type answer struct {
	status int
	header http.Header
	body   string
}

// call calls the API. A body makes it a POST.
func (g *rig) call(method, path, body string, fields ...string) answer {
	g.t.Helper()
	req, err := http.NewRequestWithContext(g.t.Context(), method, g.srv.URL+g.mount+"/api/"+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(fields); i += 2 {
		if fields[i] == "Host" {
			req.Host = fields[i+1]
		}
		req.Header.Set(fields[i], fields[i+1])
	}
	res, err := g.srv.Client().Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, string(data)}
}

// A view is what the tests read of api/state.
type view struct {
	Time    time.Time
	Gateway struct {
		Name             string
		Ready, Steering  bool
		Steering_Refused bool
		Since            time.Time
	}
	Requests, Tunnels int64
	Pins              map[string]int64
	Totals            map[string]int64
	Backends          []backendView
	Replicas          []struct {
		Name     string
		Backends map[string]struct {
			State   string
			Tunnels int64
		}
	}
	Parts []struct {
		Name, Text string
		OK         bool
	}
	Findings []struct{ Code string }
	History  map[string]map[string][]*float64
	Events   []eventView
}

type backendView struct {
	ID, URL, State, Health, Wish, Why string
	Since                             time.Time
	Weight                            int
	Requests, Tunnels                 int64
	Totals                            map[string]int64
	Rate                              float64
	P99                               *float64 `json:"p99_ms"`
	CheckError                        string   `json:"check_error"`
	Drain                             *struct {
		Since, Until time.Time
		AtStart      int64 `json:"at_start"`
		Left         int64
		Empty        bool
	}
}

type eventView struct {
	ID                       int64
	Time                     time.Time
	Kind, Backend, Text, Who string
}

func (g *rig) state(query string) view {
	g.t.Helper()
	var v view
	g.read("state"+query, &v)
	return v
}

func (g *rig) backend(id string) backendView {
	g.t.Helper()
	var v backendView
	g.read("backends/"+id, &v)
	return v
}

func (g *rig) read(path string, v any) {
	g.t.Helper()
	a := g.call("GET", path, "")
	if a.status != 200 {
		g.t.Fatalf("%s: %d %s", path, a.status, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		g.t.Fatalf("%s: %v in %s", path, err, a.body)
	}
}

// steer makes a call that must succeed.
func (g *rig) steer(path, body string) string {
	g.t.Helper()
	a := g.call("POST", path, body)
	if a.status != 200 {
		g.t.Fatalf("%s %s: %d %s", path, body, a.status, a.body)
	}
	return a.body
}

// texts returns the events of a kind, the newest first.
func (g *rig) texts(kind string) []string {
	g.t.Helper()
	var all []string
	for _, e := range g.state("?history=1").Events {
		if e.Kind == kind {
			all = append(all, e.Text)
		}
	}
	return all
}

// newClient returns a client with a cookie jar, as a browser is one.
func newClient(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Jar: jar, Transport: tr}
}

// get returns the name of the node that has answered.
func get(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	io.Copy(io.Discard, res.Body)
	return res.Header.Get("Node")
}

func dial(t *testing.T, c *http.Client, url string) (*websocket.Conn, string) {
	t.Helper()
	conn, res, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{HTTPClient: c})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	return conn, res.Header.Get("Node")
}

// newServer starts a server whose Close waits for all handlers.
func newServer(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.Start()
	t.Cleanup(srv.Close)
	return srv
}

func read(t *testing.T, res *http.Response) string {
	t.Helper()
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// eventually asks until ok is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	late := time.After(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
