package middleware

import (
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/limpet-go/limpet/internal/tokenbucket"
)

// Limit refuses requests of clients that ask for too much, and of all clients when there are
// too many. Put its Handler in front of the Gateway, or of anything else, such as one that
// serves WebSockets itself. Those limits that a machine's size decides have no default; the
// others hold without any setting, and are far above what a browser needs. Behind a NAT many
// people may be one client.
//
// A client is an address as [ClientIP] finds it, and of IPv6 the network of 64 bits that a
// customer has at least. A load balancer that isn't in ClientIP.Trusted is one client, with
// all that come through it. Clients whose address isn't known, as behind a Unix socket, are
// limited only together with all others.
//
// A request over a client's limit gets 429, one over a limit for all gets 503, both with
// Retry-After, and one with too many header fields 431. These requests reach neither the
// handlers behind nor a gateway's observers. Limit does nothing about connections on which
// no request comes: http.Server's ReadHeaderTimeout, IdleTimeout and MaxHeaderBytes do. What a
// client sends within its WebSocket, and that it takes what it is sent, is limited by
// [upgrade.Proxy].
//
// The fields must not change once Handler was called. All methods may be called
// concurrently.
type Limit struct {
	// Connections is how many requests in flight and WebSockets a client may have. 0 means
	// 1,000, negative any number.
	Connections int

	// Rate is how many requests a second a client may send, and Burst how many at once. A
	// Rate of 0 means 500, a negative one any number. A Burst of 0 means those of two
	// seconds. Requests that are refused don't count.
	Rate, Burst int

	// Tunnels is how many WebSockets there may be in all. 0 means any number.
	Tunnels int

	// Handshakes is how many WebSockets may be opened a second by all clients together, and
	// as many at once. It is for what backends need to sign clients in, when all of them
	// come back at the same time. 0 means any number.
	Handshakes int

	// Headers is how many header fields a request may have. 0 means 100, negative any
	// number, up to the server's MaxHeaderBytes.
	Headers int

	// Clients is how many addresses are remembered that have nothing open now, each with
	// about 250 bytes. 0 means 100,000. A client with something open is never forgotten,
	// and so can't get rid of its count by many other addresses. Another one is forgotten
	// for a new one when it may have its whole Burst again, so that nothing is lost. If all
	// of them have used theirs, which takes as many addresses within Burst / Rate seconds,
	// the new ones share one allowance until there is room.
	Clients int

	// ClientIP says which peers are trusted to report a client's address. It should be that
	// of the Gateway.
	ClientIP ClientIP

	// Handover is that of the Gateway behind, if it has one. The WebSockets that it takes over
	// from another process count, too, even if they are more than the limits allow. Call
	// Handler before Take or Serve then, and have the Gateway's ClientIP be this one's.
	Handover *Handover

	// Logger gets a warning about requests that are refused, at most one a second. Default:
	// slog.Default().
	Logger *slog.Logger

	once       sync.Once
	began      time.Time
	clients    *limitTable // nil if clients aren't limited
	headers    int
	handshakes tokenbucket.Bucket
	opened     atomic.Int64 // when the bucket of handshakes will be full
	tunnels    atomic.Int64
	refused    [limits]atomic.Int64
	warnings   rareWarning
}

// LimitStats tell how a [Limit] stands, and what it has refused since it was made.
type LimitStats struct {
	Clients int   // addresses that are remembered now
	Open    int   // requests in flight and WebSockets of all clients with an address
	Tunnels int64 // WebSockets of all clients, with those that are being opened

	// Requests that were refused because of the field of this name.
	Connections, Rate, TooManyTunnels, Handshakes, Headers int64
}

// A limit is one that a request can be over.
type limit int

const (
	overConnections limit = iota
	overRate
	overTunnels
	overHandshakes
	overHeaders
	limits
)

// retryTunnel is when a client may try again if there are too many tunnels, or if it has too
// many requests and tunnels itself. Nobody knows when some of them end.
const retryTunnel = 5 * time.Second

// Stats returns how l stands now. It takes each of the table's locks for a moment.
func (l *Limit) Stats() LimitStats {
	s := LimitStats{
		Tunnels:        l.tunnels.Load(),
		Connections:    l.refused[overConnections].Load(),
		Rate:           l.refused[overRate].Load(),
		TooManyTunnels: l.refused[overTunnels].Load(),
		Handshakes:     l.refused[overHandshakes].Load(),
		Headers:        l.refused[overHeaders].Load(),
	}
	l.once.Do(l.begin)
	if l.clients != nil {
		s.Clients, s.Open = l.clients.count()
	}
	return s
}

// Handler refuses what is over a limit, and calls next for everything else. It may be called
// several times: what was made of one Limit counts together. It panics where Validate returns
// an error: that is a mistake in code, found at the start.
func (l *Limit) Handler(next http.Handler) http.Handler {
	if err := l.Validate(); err != nil {
		panic(err)
	}
	l.once.Do(l.begin)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { l.serve(w, r, next) })
}

// Validate returns an error if a field is wrong. It is for limits that a user has configured:
// Handler panics then.
func (l *Limit) Validate() error {
	if err := l.wrong(); err != nil {
		return fmt.Errorf("limpet: %w", err)
	}
	return nil
}

func (l *Limit) wrong() error {
	for _, field := range []struct {
		name, zero string
		value      int
	}{
		{"Tunnels", "any number", l.Tunnels},
		{"Handshakes", "any number", l.Handshakes},
		{"Burst", "its default", l.Burst},
		{"Clients", "its default", l.Clients},
	} {
		if field.value < 0 {
			return fmt.Errorf("%s is %d; 0 means %s", "Limit."+field.name, field.value, field.zero)
		}
	}
	switch {
	case l.Rate > 1e6, l.Handshakes > 1e6, l.Burst > 1e9:
		return fmt.Errorf("Limit.Rate %d, Burst %d or Handshakes %d is no limit: want up to 1,000,000 a second", l.Rate, l.Burst, l.Handshakes)
	case l.Rate < 0 && l.Burst > 0:
		return fmt.Errorf("Limit.Burst is %d, but there is no Rate", l.Burst)
	}
	return l.ClientIP.validate()
}

// begin puts the defaults in. The fields stay as they were set.
func (l *Limit) begin() {
	or := func(n, byDefault int) int {
		if n == 0 {
			return byDefault
		}
		return max(n, 0)
	}
	l.began = time.Now()
	l.warnings.log = l.Logger
	l.headers = or(l.Headers, 100)
	l.handshakes = tokenbucket.New(l.Handshakes, l.Handshakes)
	connections, rate := or(l.Connections, 1000), or(l.Rate, 500)
	if connections > 0 || rate > 0 {
		l.clients = newLimitTable(or(l.Clients, 100_000), connections, tokenbucket.New(rate, or(l.Burst, 2*rate)))
	}
	if l.Handover != nil {
		l.Handover.limit(l)
	}
}

func (l *Limit) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if l.headers > 0 && tooMany(r.Header, l.headers) {
		l.refuse(w, r, overHeaders, netip.Addr{}, 0)
		return
	}
	now := time.Since(l.began)
	entered := limitStay{limit: l}
	addr := limitKey(l.ClientIP.Addr(r))
	if l.clients != nil && addr.IsValid() {
		over, wait := l.clients.enter(&entered, addr, now)
		if over != limits {
			l.refuse(w, r, over, addr, wait)
			return
		}
	}
	if !mayUpgrade(r) {
		defer entered.End()
		next.ServeHTTP(w, r)
		return
	}
	l.serveHandshake(w, r, next, &handshakeStay{limitStay: entered, addr: addr, now: now})
}

// serveHandshake serves a request that may become a tunnel, which may outlast the handler.
func (l *Limit) serveHandshake(w http.ResponseWriter, r *http.Request, next http.Handler, s *handshakeStay) {
	ctx := s.Begin(r.Context(), s)
	s.tunnel = true
	n := l.tunnels.Add(1)
	defer s.Release()
	if l.Tunnels > 0 && n > int64(l.Tunnels) {
		l.refuse(w, r, overTunnels, s.addr, retryTunnel)
		return
	}
	if wait := takeShared(l.handshakes, &l.opened, s.now); wait > 0 {
		l.refuse(w, r, overHandshakes, s.addr, wait)
		return
	}
	next.ServeHTTP(w, r.WithContext(ctx))
}

// mayUpgrade reports whether the handlers behind might take r for a handshake. It asks for less
// than [upgrade.Is]: they may be others than a gateway, and take a second Upgrade field where
// the first is empty, or an odd space in front of a name. Their WebSockets would not count.
func mayUpgrade(r *http.Request) bool {
	return len(r.Header["Upgrade"]) > 0 || r.Method == http.MethodConnect
}

// refuse answers a request that is over a limit.
func (l *Limit) refuse(w http.ResponseWriter, r *http.Request, over limit, addr netip.Addr, wait time.Duration) {
	l.refused[over].Add(1)
	name := [limits]string{"Connections", "Rate", "Tunnels", "Handshakes", "Headers"}[over]
	status, text := http.StatusServiceUnavailable, "too many clients at the moment. Try again later."
	switch over {
	case overConnections, overRate:
		status, text = http.StatusTooManyRequests, "too many requests or connections from this address. Try again later."
	case overHeaders:
		status, text = http.StatusRequestHeaderFieldsTooLarge, "too many header fields."
	}
	if wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	}
	args := []any{"limit", name, "client", addr, "path", r.URL.Path}
	if from := peer(r); private(from) && !l.ClientIP.trusts(from) && len(r.Header["X-Forwarded-For"]) > 0 {
		args = append(args, "hint", "the peer "+from.String()+" tells of its clients: if it is a proxy of yours, put its address into ClientIP.Trusted")
	}
	l.warnings.warn(r.Context(), "a request over a limit was refused", args...)
	http.Error(w, http.StatusText(status)+": "+text, status)
}

// tooMany reports whether h has more than most fields. Each line counts.
func tooMany(h http.Header, most int) bool {
	n := 0
	for _, lines := range h {
		if n += len(lines); n > most {
			return true
		}
	}
	return false
}

// limitKey returns what stands for a client: its address, or its network if that is IPv6.
func limitKey(addr netip.Addr) netip.Addr {
	if addr.Is4() || !addr.IsValid() {
		return addr
	}
	network, _ := addr.Prefix(64) // fails for other lengths only
	return network.Addr()
}
