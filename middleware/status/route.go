package status

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// A route is one of the calls under api/.
type route struct {
	method string
	path   string // below the mount's path; * stands for an ID
	words  string // what it does, for people
	steers bool   // only for those who may steer
	serve  func(h *Handler, w http.ResponseWriter, r *http.Request, id string) error
}

func routes() []route {
	return []route{
		{"GET", "api/", "this list", false, (*Handler).list},
		{"GET", "api/state", "how everything is now; ?history=1 adds the last minute and the last events", false, (*Handler).serveState},
		{"GET", "api/events", "an event stream: state each second and at each change, event when something has happened", false, (*Handler).serveEvents},
		{"GET", "api/backends/*", "one backend; ?wait=empty&timeout=90s answers when it may be stopped", false, (*Handler).serveBackend},
		{"POST", "api/backends/*/drain", `{"within":"60s"}: takes no new clients, and loses its own within this time; without it they stay until they leave`, true, (*Handler).drain},
		{"POST", "api/backends/*/undrain", "takes back a drain or an off", true, (*Handler).undrain},
		{"POST", "api/backends/*/off", "takes nobody from now on; its tunnels are closed", true, (*Handler).off},
		{"POST", "api/backends/*/weight", `{"weight":3}: its share of new clients; 0 is the configured one`, true, (*Handler).weight},
		{"POST", "api/shares", `{"shares":{"stable":99,"canary":1}}: the shares of new clients that groups get; {} means that groups don't matter`, true, (*Handler).shares},
		{"POST", "api/pins/find", `{"cookie":"limpet=…"}, {"sid":"…"}, {"address":"…"} or {"key":"…"}: where a client belongs; "path" is that of the client's requests, /socket.io/ by default`, true, (*Handler).findPin},
		{"POST", "api/pins/move", `{"key":"…","backend":"b"}: the client's next request goes there`, true, (*Handler).movePin},
		{"POST", "api/pins/forget", `{"key":"…"}: the client's next request is placed as a new client's`, true, (*Handler).forgetPin},
		{"GET", "api/tunnels", "?backend=a&key=…&limit=100: the open tunnels of this gateway", true, (*Handler).listTunnels},
		{"POST", "api/tunnels/*/close", `{"code":1012,"reason":"…"}: closes one tunnel`, true, (*Handler).closeTunnel},
		{"POST", "api/clients/close", `{"key":"…","code":1012,"reason":"…"}: closes the tunnels of one client, on all gateways of the bus`, true, (*Handler).closeClient},
	}
}

// ServeHTTP serves the page and the calls under api/. It looks only at the end of the
// path, so that it works wherever it is mounted, and whether the prefix is stripped or not.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.servers.of(r) // as early as possible: see there
	segments := strings.Split(r.URL.Path, "/")
	var allowed []string
	for _, route := range h.routes {
		id, ok := match(segments, route.path)
		switch {
		case !ok:
		case route.method == r.Method || route.method == http.MethodGet && r.Method == http.MethodHead:
			h.call(w, r, route, id)
			return
		default:
			allowed = append(allowed, route.method)
		}
	}
	last := segments[len(segments)-1]
	switch {
	case len(allowed) > 0:
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		writeError(w, failf(http.StatusMethodNotAllowed, "this is called with %s, not with %s", strings.Join(allowed, " or "), r.Method))
	case last != "" && !strings.Contains(last, ".") && !strings.HasSuffix(r.Pattern, "/"+last) && belowAPI(segments):
		writeError(w, failf(http.StatusNotFound, "there is no such call; GET api/ lists those that there are"))
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		writeError(w, failf(http.StatusMethodNotAllowed, "the page is read with GET"))
	case strings.Contains(last, "."):
		page(w, r, last)
	default:
		page(w, r, "") // which sends a path without a slash at its end to the one with it
	}
}

// belowAPI reports whether a path is below api/, as a call that there isn't may be. The prefix
// of the mount may have an api of its own: chi and ServeMux tell the pattern of a mount point,
// which then ends like the path.
func belowAPI(path []string) bool {
	return slices.Contains(path[max(0, len(path)-4):len(path)-1], "api")
}

// match reports whether a path ends like pattern, and what stands in place of its *.
func match(path []string, pattern string) (id string, ok bool) {
	want := strings.Split(pattern, "/")
	if len(path) < len(want) {
		return "", false
	}
	path = path[len(path)-len(want):]
	for i, segment := range want {
		switch {
		case segment == "*" && path[i] != "":
			id = path[i]
		case segment != path[i]:
			return "", false
		}
	}
	return id, true
}

// call serves one call, if its sender may make it.
func (h *Handler) call(w http.ResponseWriter, r *http.Request, route route, id string) {
	err := h.permit(r, route)
	if err == nil {
		err = route.serve(h, w, r, id)
	}
	if err != nil {
		writeError(w, err)
	}
}

func (h *Handler) permit(r *http.Request, route route) error {
	switch {
	case !route.steers:
		return nil
	case h.origin.Check(r) != nil:
		return failf(http.StatusForbidden, "a page of another origin has sent this request")
	case h.opts.Authorize == nil:
		return failf(http.StatusForbidden, "steering is off: the service sets no Authorize in the options of its status page; examples/gateway does with -admin-token-file, or with -admin unix:/path")
	case !h.opts.Authorize(r):
		return failf(http.StatusForbidden, "you may look, but not steer: Authorize of the service refuses you")
	}
	return nil
}

// A failure is an error with the status that it is answered with.
type failure struct {
	status int
	text   string
}

func (f *failure) Error() string { return f.text }

func failf(status int, format string, args ...any) error {
	return &failure{status, fmt.Sprintf(format, args...)}
}

// writeError answers with an error: that of failf with its status, and any other with 400.
func writeError(w http.ResponseWriter, err error) {
	status := http.StatusBadRequest
	var f *failure
	if errors.As(err, &f) {
		status = f.status
	}
	setHeader(w)
	w.WriteHeader(status)
	encode(w, map[string]string{"error": err.Error()})
}

func writeJSON(w http.ResponseWriter, v any) error {
	setHeader(w)
	encode(w, v)
	return nil
}

// encode writes v. A failure is that of the connection.
func encode(w http.ResponseWriter, v any) {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false) // no browser takes it for HTML: see setHeader
	_ = e.Encode(v)
}

// setHeader sets the fields of each answer that has JSON or is an event stream. Nobody
// keeps it, and no page of another origin can use it for anything.
func setHeader(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}

// list answers with the calls that there are.
func (h *Handler) list(w http.ResponseWriter, r *http.Request, _ string) error {
	type call struct {
		Call   string `json:"call"`
		Words  string `json:"words"`
		Steers bool   `json:"steers,omitempty"`
	}
	var calls []call
	for _, route := range h.routes {
		calls = append(calls, call{route.method + " " + route.path, route.words, route.steers})
	}
	return writeJSON(w, map[string]any{"calls": calls, "steering": h.maySteer(r)})
}

func (h *Handler) serveState(w http.ResponseWriter, r *http.Request, _ string) error {
	s := h.state()
	if r.URL.Query().Get("history") == "1" {
		h.addHistory(s)
	}
	return writeJSON(w, h.view(s, h.maySteer(r)))
}
