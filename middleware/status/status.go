package status

import (
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// Options are the settings of a [Handler]. The zero value, and nil, is a good default: it
// shows everything that isn't a client's secret, and changes nothing.
type Options struct {
	// Authorize reports whether the sender of r may steer, which means to drain backends,
	// to move clients, to close tunnels, and to see which clients there are. Nil: nobody
	// may.
	//
	// It is called for each request, and should ask for more than an address. Who logs in,
	// and how, is the business of a handler in front, such as chi's BasicAuth:
	//
	//	Authorize: func(r *http.Request) bool {
	//		user, _, ok := r.BasicAuth() // BasicAuth in front has checked the password
	//		return ok && operators[user]
	//	}
	//
	// Where it does go by the address, it must compare r.Host with the names of this
	// service as well: a page of another site may let its own name point to this address
	// (DNS rebinding), and is then of the same origin.
	Authorize func(r *http.Request) bool

	// Who names the sender of r in the log and on the timeline. Default: the user name of
	// HTTP's basic authentication, or else the address of the connection.
	Who func(r *http.Request) string

	// Long reports whether the time that a request took says nothing about how fast its
	// backend is, so that it is kept out of p50 and p99. It is asked about the answers of
	// backends that don't count as long already; see the documentation of the package. It
	// must return quickly and keep nothing of rec. Nil: no others.
	Long func(rec *limpet.Record) bool

	// Logger gets each action of an operator, at level Info. Default: slog.Default().
	Logger *slog.Logger

	// Parts tell about other parts of the service, such as the store of pins, the bus or
	// the hub, by the names under which they are shown. Each returns how the part is in
	// some words, or an error if it isn't well. They are called once a second while
	// somebody watches, perhaps concurrently. They must return at once: they tell what is
	// known, and ask nobody.
	Parts map[string]func() (text string, err error)
}

// A Handler is an http.Handler that shows how a gateway is: as a page, and as JSON under
// api/. It is mounted under any path, in any router. All methods may be called concurrently.
//
// It observes the gateway from New to Close. That costs each request some ten atomic
// additions to counters of its backend, and about 20 KB of memory for each backend that is
// used. With [Options.Authorize] it keeps address and path of each open tunnel, too. A Handler has no goroutine of its own: the counters of a second are begun by the
// first request of that second, and each event stream runs on its request's goroutine.
type Handler struct {
	gateway *limpet.Gateway
	opts    Options
	parts   []string // the names of Options.Parts, sorted
	log     *slog.Logger
	routes  []route
	origin  http.CrossOriginProtection
	stop    []func()

	census   *census
	timeline timeline
	drains   drains
	acts     acts
	clients  clients
	servers  servers
	streams  streams
	watchers atomic.Int64

	noticeMu sync.Mutex // guards what notice compares with
	replicas map[string]limpet.ReplicaStats
	findings map[string]bool // by code
	ready    bool
}

// New returns a Handler that observes gateway until Close is called. It panics without a
// gateway; opts may be nil.
//
//	r.Mount("/limpet", status.New(gateway, nil)) // chi
//	mux.Handle("/limpet/", status.New(gateway, nil))
//
// Everybody who can reach the Handler sees the state of the service, and which backends it
// has at which addresses. Mount it where only the people concerned get to, or behind a
// handler that asks for a password.
func New(gateway *limpet.Gateway, opts *Options) *Handler {
	if gateway == nil {
		panic("limpet: status.New needs a gateway")
	}
	h := &Handler{gateway: gateway, findings: make(map[string]bool), ready: true}
	if opts != nil {
		h.opts = *opts
	}
	if h.log = h.opts.Logger; h.log == nil {
		h.log = slog.Default()
	}
	if h.opts.Who == nil {
		h.opts.Who = who
	}
	h.parts = slices.Sorted(maps.Keys(h.opts.Parts))
	h.routes = routes()
	h.servers.ended = make(chan struct{})
	h.census = newCensus(gateway.Pool(), h.opts.Long)
	h.timeline.add(event{Kind: "gateway", Text: "Limpet began to keep this record."})
	h.stop = append(h.stop, gateway.Pool().OnChange(h.changed), gateway.Pool().OnShares(h.sharesChanged))
	for _, b := range gateway.Stats().Backends {
		h.census.add(b.Backend)
		if b.Backend.Wanted().State != balancer.Up && h.drains.of(b.Backend).noticed.IsZero() {
			h.drains.begin(b.Backend, b.Tunnels)
		}
	}
	o := limpet.Observer{Request: h.census.request, Closed: h.census.closed}
	if h.opts.Authorize != nil {
		o.Opened = h.clients.opened
	}
	h.stop = append(h.stop, gateway.Observe(o))
	return h
}

// Close ends the observation and all event streams. Afterwards the Handler answers with what
// it knows.
func (h *Handler) Close() {
	for _, stop := range h.stop {
		stop()
	}
	h.servers.close()
}

// who is the default of Options.Who.
func who(r *http.Request) string {
	if user, _, ok := r.BasicAuth(); ok && user != "" {
		return user
	}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return r.RemoteAddr
}

// maySteer reports whether the sender of r may steer.
func (h *Handler) maySteer(r *http.Request) bool {
	return h.opts.Authorize != nil && h.opts.Authorize(r)
}

// view returns s as somebody sees it who may steer, or may not.
func (h *Handler) view(s *state, steers bool) *state {
	v := *s
	v.Gateway.Steering = steers
	v.Gateway.SteeringRefused = h.opts.Authorize != nil && !steers
	if !steers {
		v.Events = slices.Clone(v.Events)
		for i := range v.Events {
			v.Events[i].Who = ""
		}
	}
	return &v
}

const (
	// maxWatchers is how many event streams, and waits for an empty backend, there may be
	// at the same time.
	maxWatchers = 64
	// writeTime is how long a viewer may take to read one message.
	writeTime = 10 * time.Second
)
