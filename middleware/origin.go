package middleware

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/limpet-go/limpet/internal/httpfield"
)

// Origin refuses WebSockets of pages of other sites. Put its Handler in front of the
// Gateway, or of any other handler that serves WebSockets.
//
// Browsers open a WebSocket to any host for any page, with the cookies of that host, and
// let the page read what comes. There is no CORS for WebSockets. A service that knows its
// users by cookies therefore has to look at the Origin field itself, or a foreign page can
// act for a user who has it open (cross-site WebSocket hijacking, RFC 6455 section 10.2).
//
// By default only pages of the same origin are allowed. A browser that sends Sec-Fetch-Site
// says so itself. Of another one the Origin has to name the host and the port of the
// request's Host, or of the X-Forwarded-Host that a trusted proxy sends, and the scheme,
// where that is known: the connection is TLS here, or a trusted proxy sends
// X-Forwarded-Proto. A page of http is no page of the same origin for wss.
//
// A request that has neither an Origin nor a Sec-Fetch-Site field isn't a browser's
// WebSocket. Native apps and programs send such requests, and can send any Origin if they
// like. So such a request is allowed, unless Required is set.
//
// A request that is refused gets 403. All methods may be called concurrently.
type Origin struct {
	// Allow names other origins whose pages are allowed: as browsers send them, such as
	// "https://www.example.com", "http://localhost:3000" or "capacitor://localhost", or
	// with a wildcard in front, as "https://*.example.com". The wildcard stands for one or
	// more labels: a.example.com and a.b.example.com match, example.com doesn't. Anybody
	// who can serve a page below such a domain is allowed. A name of other characters than
	// ASCII has to be in punycode.
	//
	// Documents without an origin of their own, such as sandboxed frames and files, send
	// the origin "null". It is allowed only if Allow has "null", and then every site is,
	// since any page can have a sandboxed frame.
	Allow []string

	// Polling has the requests of Engine.IO's HTTP long-polling judged too. Another site's
	// page can open such a session with a user's cookies by a plain GET, and read the
	// answers where the service's CORS lets it, or as scripts where the service serves
	// JSONP, as Socket.IO 2 does. JSONP from the origins in Allow is refused: browsers
	// don't say whose page a script is for.
	Polling bool

	// Unsafe has all requests judged whose method isn't GET, HEAD or OPTIONS, against
	// cross-site request forgery. [http.CrossOriginProtection] does that alone. It knows
	// neither wildcards nor forwarded hosts, and Origin follows the same rules.
	Unsafe bool

	// Required refuses requests that have neither an Origin nor a Sec-Fetch-Site field. It
	// keeps simple programs out, but nobody who writes the field himself.
	Required bool

	// ReportOnly lets pass what would be refused, logs it, and counts it, to try a setting
	// out.
	ReportOnly bool

	// Refused, if not nil, is called for each request that is refused, or would be without
	// ReportOnly, on the goroutine that serves it. The error says why.
	Refused func(r *http.Request, err error)

	// ClientIP says which peers are trusted to send X-Forwarded-Host and
	// X-Forwarded-Proto. Such a proxy has to set X-Forwarded-Host itself, or remove what
	// clients send. It should be that of the Gateway.
	ClientIP ClientIP

	// Logger gets a warning about requests that are refused, at most one a second.
	// Default: slog.Default().
	Logger *slog.Logger

	refused, reported atomic.Int64
}

// OriginStats tell what an [Origin] has found since it was made.
type OriginStats struct {
	Refused  int64 // requests that were answered with 403
	Reported int64 // requests that passed only because of ReportOnly
}

// Stats returns what was found until now.
func (o *Origin) Stats() OriginStats {
	return OriginStats{Refused: o.refused.Load(), Reported: o.reported.Load()}
}

// Validate returns an error if Allow has an entry that no browser's Origin can match or that
// would allow every site, or if ClientIP is wrong. It is for origins that a user has
// configured: Handler panics then.
func (o *Origin) Validate() error {
	_, err := o.allowed()
	return err
}

func (o *Origin) allowed() ([]allowedOrigin, error) {
	allow, err := parseAllowed(o.Allow)
	if err == nil {
		err = o.ClientIP.validate()
	}
	if err != nil {
		return nil, fmt.Errorf("limpet: %w", err)
	}
	return allow, nil
}

// Handler refuses what o says, and calls next for everything else. It panics where
// Validate returns an error: that is a mistake in code, found at the start.
func (o *Origin) Handler(next http.Handler) http.Handler {
	allow, err := o.allowed()
	if err != nil {
		panic(err)
	}
	warnings := &rareWarning{log: o.Logger}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !o.covers(r) {
			next.ServeHTTP(w, r)
			return
		}
		err := o.check(r, allow)
		if err == nil {
			next.ServeHTTP(w, r)
			return
		}
		msg := "a request of another site's page was refused"
		if o.ReportOnly {
			msg = "a request of another site's page would be refused, without ReportOnly"
		}
		warnings.warn(r.Context(), msg, "err", err, "method", r.Method, "path", r.URL.Path, "client", o.ClientIP.Addr(r))
		if o.Refused != nil {
			o.Refused(r, err)
		}
		if o.ReportOnly {
			o.reported.Add(1)
			next.ServeHTTP(w, r)
			return
		}
		o.refused.Add(1)
		http.Error(w, "Forbidden: this page's origin is not allowed to connect here.", http.StatusForbidden)
	})
}

// covers reports whether r is judged. Whatever a handler behind might take for a handshake
// counts as one: browsers send an Upgrade field with nothing else, and the CONNECT of RFC
// 8441 neither.
func (o *Origin) covers(r *http.Request) bool {
	switch {
	case len(r.Header["Upgrade"]) > 0, r.Method == http.MethodConnect:
		return true
	case r.Method == http.MethodOptions: // a preflight has no cookies
		return false
	case o.Unsafe && r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != "":
		return true
	}
	return o.Polling && namesTransport(r.URL.RawQuery)
}

// namesTransport reports whether a query has the parameter transport, without which
// Engine.IO serves nothing. A page can write the query as it likes, so that every way counts
// in which a server might read it.
func namesTransport(query string) bool {
	const name = "transport"
	if strings.Contains(query, name) {
		return true
	}
	if !strings.Contains(query, "%") {
		return false
	}
	var b []byte
	for i := 0; i < len(query); i++ {
		if query[i] == '%' && i+2 < len(query) {
			if c, err := strconv.ParseUint(query[i+1:i+3], 16, 8); err == nil {
				b, i = append(b, byte(c)), i+2
				continue
			}
		}
		b = append(b, query[i])
	}
	return strings.Contains(string(b), name)
}

// check returns an error if r comes from a page that isn't allowed.
func (o *Origin) check(r *http.Request, allow []allowedOrigin) error {
	lines, site := r.Header["Origin"], r.Header["Sec-Fetch-Site"]
	switch {
	case len(lines) > 1 || len(site) > 1:
		return errors.New("several Origin or Sec-Fetch-Site fields")
	case len(site) == 1 && site[0] == "same-origin":
		return nil
	case len(lines) == 0 && len(site) == 1 && site[0] != "none": // none: the user has typed the address
		return fmt.Errorf("a page of another origin (Sec-Fetch-Site: %q), whose name the browser doesn't send", site[0])
	case len(lines) == 0 && len(site) == 0 && o.Required:
		return errors.New("no Origin field")
	case len(lines) == 0:
		return nil
	}
	from, ok := parseOrigin(lines[0])
	switch {
	case !ok:
		return fmt.Errorf("%.200q is no origin", lines[0])
	case slices.ContainsFunc(allow, func(a allowedOrigin) bool { return a.matches(from) }):
		return nil
	case (len(site) == 0 || site[0] == "none") && o.same(from, r):
		return nil
	}
	return fmt.Errorf("a page of %.200q connects to the host %.200q; name its origin in Allow if that is right", lines[0], o.host(r))
}

// same reports whether from is the origin that r was sent to, as far as that is known.
func (o *Origin) same(from origin, r *http.Request) bool {
	scheme := o.scheme(r)
	if scheme == "" && (from.scheme == "http" || from.scheme == "https") {
		scheme = from.scheme
	}
	to, ok := parseOrigin(scheme + "://" + strings.TrimSuffix(o.host(r), ":"))
	return ok && from == to
}

// host returns the host as the client has named it.
func (o *Origin) host(r *http.Request) string {
	if lines := r.Header["X-Forwarded-Host"]; len(lines) > 0 && o.ClientIP.trusts(peer(r)) {
		return lastItem(lines)
	}
	return r.Host
}

// scheme returns the scheme of the client's own connection, "" if that isn't known.
func (o *Origin) scheme(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	if lines := r.Header["X-Forwarded-Proto"]; len(lines) > 0 && o.ClientIP.trusts(peer(r)) {
		switch strings.ToLower(lastItem(lines)) {
		case "https", "wss":
			return "https"
		case "http", "ws":
			return "http"
		}
	}
	return ""
}

// An origin is one in the form in which two of them can be compared (RFC 6454 section 4):
// scheme and host are in lower case, and a port is always there for http and https.
type origin struct{ scheme, host, port string }

// nullOrigin is that of documents without one. No other string parses to it.
var nullOrigin = origin{port: "null"}

// parseOrigin parses an Origin field strictly. What isn't exactly one origin is none: no
// user information, no path, no list. A dot at the end of a host stays, as it does for
// browsers: such a host is another origin.
func parseOrigin(s string) (origin, bool) {
	if s == "null" {
		return nullOrigin, true
	}
	scheme, host, ok := strings.Cut(s, "://")
	if !ok || !httpfield.IsToken(scheme) || len(s) > 1000 {
		return origin{}, false
	}
	from := origin{scheme: strings.ToLower(scheme)}
	web := from.scheme == "http" || from.scheme == "https"
	if host == "" { // file:// of some apps
		return from, !web
	}
	if !isHost(host) {
		return origin{}, false
	}
	host = strings.ToLower(host)
	if colon := strings.LastIndexByte(host, ':'); colon > strings.LastIndexByte(host, ']') {
		port, err := strconv.ParseUint(host[colon+1:], 10, 16)
		if err != nil {
			return origin{}, false
		}
		host, from.port = host[:colon], strconv.FormatUint(port, 10)
	}
	if from.port == "" && web {
		from.port = map[string]string{"http": "80", "https": "443"}[from.scheme]
	}
	if host[0] == '[' { // there are several ways to write an IPv6 address
		addr, _ := netip.ParseAddr(host[1 : len(host)-1])
		host = "[" + addr.String() + "]"
	}
	from.host = host
	return from, true
}

// An allowedOrigin is an entry of Origin.Allow.
type allowedOrigin struct {
	origin      // of a wildcard host is what follows the *, with the dot in front
	below  bool // it is a wildcard
}

func (a allowedOrigin) matches(from origin) bool {
	if !a.below {
		return a.origin == from
	}
	labels, ok := strings.CutSuffix(from.host, a.host)
	return ok && labels != "" && from.scheme == a.scheme && from.port == a.port
}

func parseAllowed(entries []string) ([]allowedOrigin, error) {
	var all []allowedOrigin
	for _, entry := range entries {
		if strings.HasSuffix(entry, "*") {
			return nil, fmt.Errorf("Origin.Allow has %q, which would allow every site: leave Origin out if that is right, or name the sites", entry)
		}
		scheme, rest, below := strings.Cut(entry, "://*.")
		one := entry
		if below {
			one = scheme + "://" + rest
		}
		o, ok := parseOrigin(one)
		if !ok || strings.Contains(one, "*") || below && (o.host == "" || o.host[0] == '[') {
			return nil, fmt.Errorf("Origin.Allow has %q, which is no origin as browsers send it: want https://host or https://host:port, without a path, or https://*.example.com", entry)
		}
		if below {
			if !strings.Contains(o.host, ".") && o.host != "localhost" {
				return nil, fmt.Errorf("Origin.Allow has %q, which would allow every site of a top-level domain: name the sites", entry)
			}
			o.host = "." + o.host
		}
		all = append(all, allowedOrigin{o, below})
	}
	return all, nil
}
