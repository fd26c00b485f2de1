package middleware_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/leaktest"
	"github.com/limpet-go/limpet/internal/nodetest"
	limpet "github.com/limpet-go/limpet/middleware"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// patience bounds waits for what must happen; nothing is measured by it.
const patience = 10 * time.Second

// testKeys are those of all affinities that seal.
var testKeys = [][]byte{[]byte("each limpet comes home to the scar that it has ground")}

// A node is a backend of the tests: a real server that says who it is.
type node struct {
	*nodetest.Node
	id string
}

// newNode starts a server whose answers carry its ID in the field Node.
func newNode(t *testing.T, id string, h http.Handler) *node {
	t.Helper()
	if h == nil {
		h = http.HandlerFunc(sayNode)
	}
	return &node{nodetest.New(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Node", id)
		h.ServeHTTP(w, r)
	})), id}
}

// cluster starts nodes a, b, c… and a pool of them that nobody checks.
func cluster(t *testing.T, size int, h http.Handler) (*balancer.Pool, map[string]*node) {
	t.Helper()
	nodes := make(map[string]*node)
	for i := range size {
		id := string(rune('a' + i))
		nodes[id] = newNode(t, id, h)
	}
	return poolOf(t, nil, nodes), nodes
}

func poolOf(t *testing.T, opts *balancer.Options, nodes map[string]*node) *balancer.Pool {
	t.Helper()
	pool, err := balancer.NewPool(opts)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(nodes) {
		n := nodes[string(rune('a'+i))]
		b, err := balancer.NewBackend(n.id, n.URL, 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := pool.Add(b); err != nil {
			t.Fatal(err)
		}
	}
	return pool
}

// run starts the pool's checks and waits with f for a change of state.
func run(t *testing.T, pool *balancer.Pool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = pool.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// await waits until the backend is in the given state.
func await(t *testing.T, pool *balancer.Pool, id string, want balancer.State) {
	t.Helper()
	changed := make(chan struct{}, 100)
	stop := pool.OnChange(func(balancer.Change) { changed <- struct{}{} })
	defer stop()
	timeout := time.After(patience)
	for pool.Get(id).State() != want {
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("backend %s is still %v, want %v", id, pool.Get(id).State(), want)
		}
	}
}

// serve mounts a gateway on a server and shuts both down with the test.
func serve(t *testing.T, pool *balancer.Pool, opts *limpet.Options) (*httptest.Server, *limpet.Gateway) {
	t.Helper()
	gw := newGateway(t, pool, opts)
	srv := httptest.NewServer(gw)
	t.Cleanup(srv.Close)
	return srv, gw
}

func newGateway(t *testing.T, pool *balancer.Pool, opts *limpet.Options) *limpet.Gateway {
	t.Helper()
	if opts == nil {
		opts = &limpet.Options{}
	}
	if opts.Affinity == nil {
		opts.Affinity = &affinity.Cookie{Secrets: testKeys}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	gw, err := limpet.NewGateway(pool, opts)
	if err != nil {
		t.Fatal(err)
	}
	shutDown(t, gw)
	return gw
}

// withoutAffinity returns a gateway with the default of Options.Affinity.
func withoutAffinity(t *testing.T, pool *balancer.Pool, logger *slog.Logger) *limpet.Gateway {
	t.Helper()
	gw, err := limpet.NewGateway(pool, &limpet.Options{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	shutDown(t, gw)
	return gw
}

// ailing has what the doctor is to find, or may, in the set-ups of some tests.
var ailing = map[string]string{
	"TestBusThatIsNeverRun":       "bus-not-run",
	"TestDistrustIsTold":          "untrusted-proxy",
	"TestDoctor":                  "any",
	"TestDoctorInTime":            "any",
	"TestHintsOfNode":             "one-address",
	"TestProxyProtocolToBackends": "untrusted-proxy",
	"TestReadTimeoutWithinABody":  "server-timeouts",
	"TestServerTimeLimits":        "server-timeouts",
	"TestTorture":                 "untrusted-proxy",
	"TestUnknownSessions":         "unknown-session",
}

// shutDown shuts gw down with the test, which fails if the doctor has found something in a
// set-up that is in order.
func shutDown(t *testing.T, gw *limpet.Gateway) {
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = gw.Shutdown(ctx)
		name, _, _ := strings.Cut(t.Name(), "/")
		for _, f := range gw.Stats().Findings {
			slow := f.Code == "no-health-checks" && !gw.Pool().HasRun() // most tests don't run it, and end before that shows
			if may := ailing[name]; may != "any" && !slow && !strings.Contains(may, f.Code) {
				t.Errorf("the doctor has found something: %+v", f)
			}
		}
	})
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

// get returns the answer with its body read, and fails the test when there is none.
func get(t *testing.T, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// raw sends request as it is and returns the connection and a reader of it.
func raw(t *testing.T, srv *httptest.Server, request string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, strings.ReplaceAll(request, "\n", "\r\n")); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// rawBackend accepts connections and gives each to serve, for what no
// well-behaved server would do.
func rawBackend(t *testing.T, serve func(conn net.Conn, r *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(patience))
				serve(conn, bufio.NewReader(conn))
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return "http://" + l.Addr().String()
}

// eventually asks until ok is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	late := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Errorf("waited in vain for %s", what)
			return
		}
	}
}
