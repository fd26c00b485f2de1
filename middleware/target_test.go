package middleware_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// overHTTP1 returns the status of the answer to a request, and whether the connection
// is kept behind it.
func overHTTP1(t *testing.T, srv *httptest.Server, request string) (status int, kept bool) {
	t.Helper()
	_, r := raw(t, srv, request)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, !res.Close
}

// overHTTP2 sends a request of these fields, name and value in turns, and of a body
// if it isn't empty, on a connection of its own. It returns the status of the answer,
// 0 if the server takes the request for a breach of the protocol.
func overHTTP2(t *testing.T, srv *httptest.Server, body string, fields ...string) int {
	t.Helper()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	const data, headers, settings, endStream, endHeaders = 0, 1, 4, 1, 4
	frame := func(to []byte, kind, flags byte, stream uint32, payload []byte) []byte {
		to = append(to, byte(len(payload)>>16), byte(len(payload)>>8), byte(len(payload)), kind, flags)
		return append(binary.BigEndian.AppendUint32(to, stream), payload...)
	}
	var block []byte // each a literal without indexing and of a new name, RFC 7541 section 6.2.2
	for i := 0; i < len(fields); i += 2 {
		block = append(append(block, 0, byte(len(fields[i]))), fields[i]...)
		block = append(append(block, byte(len(fields[i+1]))), fields[i+1]...)
	}
	out := frame([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), settings, 0, 0, nil)
	if body == "" {
		out = frame(out, headers, endHeaders|endStream, 1, block)
	} else {
		out = frame(frame(out, headers, endHeaders, 1, block), data, endStream, 1, []byte(body))
	}
	if _, err := conn.Write(out); err != nil {
		t.Fatal(err)
	}
	for r := bufio.NewReader(conn); ; {
		var head [9]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			t.Fatal(err)
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(r, payload); err != nil {
			t.Fatal(err)
		}
		switch head[3] {
		case headers:
			status, ok := map[byte]int{0x88: 200, 0x89: 204, 0x8c: 400}[payload[0]] // of HPACK's static table
			if !ok {
				t.Fatalf("answer %x", payload)
			}
			return status
		case 3, 7: // RST_STREAM, GOAWAY
			return 0
		}
	}
}

// readingHeads returns a backend that answers 204 and tells what it read.
func readingHeads(t *testing.T) (url string, seen chan string) {
	seen = make(chan string, 10)
	return rawBackend(t, func(conn net.Conn, r *bufio.Reader) {
		var all bytes.Buffer
		if req, err := http.ReadRequest(bufio.NewReader(io.TeeReader(r, &all))); err == nil {
			io.Copy(io.Discard, req.Body)
		}
		seen <- all.String()
		io.WriteString(conn, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
	}), seen
}

// bothVersions mounts h on a server of HTTP/1 and HTTP/2 without TLS.
func bothVersions(t *testing.T, h http.Handler) *httptest.Server {
	srv := httptest.NewUnstartedServer(h)
	srv.Config.DisableGeneralOptionsHandler = true // or OPTIONS * is answered by net/http
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	t.Cleanup(srv.Close)
	return srv
}

// Handlers in front look at r.URL and r.Host. What they see is what the backend gets,
// or the request is refused.
func TestTargets(t *testing.T) {
	t.Parallel()
	backend, seen := readingHeads(t)
	gw := newGateway(t, balancer.Static("a="+backend), nil)
	srv := bothVersions(t, gw)
	for _, tt := range []struct {
		method, target string
		want, host     string // "": refused
	}{
		{"GET", "/", "/", "t.test"},
		{"GET", "/a|b%2fc?d|", "/a|b%2fc?d|", "t.test"},
		{"GET", "//a%2fb?", "//a%2fb?", "t.test"},
		{"GET", "///a", "///a", "t.test"},
		{"GET", "//a|b%2f%2e%2e%2fc", "", ""},
		{"GET", "/%2e%2e%2Fa/..%5cb", "/%2e%2e%2Fa/..%5cb", "t.test"},
		{"GET", "http://other.test:81/a|b%2f%2e%2e%2fc?d|", "/a|b%2f%2e%2e%2fc?d|", "other.test:81"},
		{"GET", "HTTPS://other.test?a", "/?a", "other.test"},
		{"GET", "http://[::1]:80/", "/", "[::1]:80"},
		{"GET", "http://h//a%2fb", "//a%2fb", "h"},
		{"GET", "http://h//a|b%2fc", "", ""},
		{"OPTIONS", "*", "*", "t.test"},
		{"GET", "*", "", ""},
		{"GET", "x:http://evil.test/admin/x", "", ""},
		{"GET", "x:/admin", "", ""},
		{"GET", "x:admin", "", ""},
		{"GET", "javascript:alert(1)", "", ""},
		{"GET", `http:\\host/p`, "", ""},
		{"GET", "http:/p", "", ""},
		{"GET", "http:p", "", ""},
		{"GET", "http:///x", "", ""},
		{"GET", "http://a@h/x", "", ""},
		{"GET", "http://@h/x", "", ""},
		{"GET", "http://h:/x", "/x", "h:"},
		{"GET", "http://h%c3%bc/x", "", ""},
		{"GET", "ftp://h/x", "", ""},
		{"GET", "file:///x", "", ""},
		{"GET", "ws://h/x", "", ""},
		{"GET", "/a#b", "", ""},
		{"GET", "/a?b#c", "", ""},
		{"GE(T", "/", "", ""},
	} {
		t.Run(tt.method+" "+tt.target, func(t *testing.T) {
			judge := func(status int, over string) {
				if tt.want == "" {
					if status != 400 && status != 0 || over == "HTTP/1" && status != 400 || len(seen) != 0 {
						t.Errorf("%s: status %d, %d requests at the backend", over, status, len(seen))
					}
					return
				}
				if status != 204 {
					t.Fatalf("%s: status %d", over, status)
				}
				want := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\n", tt.method, tt.want, tt.host)
				if got := <-seen; !strings.HasPrefix(got, want) {
					t.Errorf("%s: the backend read %q, want %q", over, got, want)
				}
			}
			status, _ := overHTTP1(t, srv, tt.method+" "+tt.target+" HTTP/1.1\nHost: t.test\n\n")
			judge(status, "HTTP/1")
			if tt.want != "" && tt.want != tt.target {
				tt.want = "" // there is no absolute-form in HTTP/2
			}
			judge(overHTTP2(t, srv, "", ":method", tt.method, ":scheme", "http", ":authority", "t.test", ":path", tt.target), "HTTP/2")
		})
	}
	t.Run("PRI", func(t *testing.T) {
		pri := httptest.NewServer(gw) // without HTTP/2 it is a request
		defer pri.Close()
		if status, _ := overHTTP1(t, pri, "PRI * HTTP/2.0\n\nSM\n\n"); status != 400 || len(seen) != 0 {
			t.Errorf("status %d", status)
		}
	})
	for _, path := range []string{"/a b", "/a?b c", "/a HTTP/1.0", "http://t.test/a", "/a\x7f", "/a\x00", "/a\r\nX: y", "a", "?a", "*x"} {
		if status := overHTTP2(t, srv, "", ":method", "GET", ":scheme", "http", ":authority", "t.test", ":path", path); status != 400 && status != 0 || len(seen) != 0 {
			t.Errorf("HTTP/2, path %q: status %d", path, status)
		}
	}
}

// A path that a handler or Rewrite changed keeps what is escaped in it, or is refused.
func TestChangedTargets(t *testing.T) {
	t.Parallel()
	backend, seen := readingHeads(t)
	pool := balancer.Static("a=" + backend)
	rewriting := func(f func(u *url.URL)) http.Handler {
		return newGateway(t, pool, &limpet.Options{Rewrite: func(_, out *http.Request) { f(out.URL) }})
	}
	changing := func(f func(r *http.Request)) http.Handler {
		gw := newGateway(t, pool, nil)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			f(r)
			gw.ServeHTTP(w, r)
		})
	}
	strip := func(prefix string) http.Handler { return http.StripPrefix(prefix, newGateway(t, pool, nil)) }
	careless := rewriting(func(u *url.URL) { u.Path = "/base" + u.Path })
	for name, tt := range map[string]struct {
		handler      http.Handler
		target, want string
	}{
		"prefix stripped":                     {strip("/app"), "/app/x?y|", "/x?y|"},
		"prefix stripped, odd characters":     {strip("/app"), "/app/x|y%2f%7e?z|", "/x|y%2f%7e?z|"},
		"prefix stripped, two slashes":        {strip("/app"), "/app//x%2fy", "//x%2fy"},
		"prefix stripped, two odd slashes":    {strip("/app"), "/app//x|%2fy", ""},
		"prefix stripped, nothing left":       {strip("/app"), "/app?x", "/?x"},
		"prefix stripped to an escaped slash": {strip("/app"), "/app%2fx", ""},
		"prefix with a slash":                 {strip("/app/"), "/app/x", ""},
		"prefix stripped to a star":           {strip("/app"), "/app*", ""},
		"JoinPath":                            {rewriting(func(u *url.URL) { *u = *(&url.URL{Path: "/base"}).JoinPath(u.EscapedPath()) }), "/a%2fb", "/base/a%2fb"},
		"Path alone":                          {careless, "/a b", ""},
		"Path alone, nothing lost":            {careless, "/a(b)|%7e", "/base/a%28b%29%7C~"},
		"Path alone, a slash lost":            {careless, "/a%2Fb", ""},
		"Path alone, a semicolon lost":        {careless, "/a%3bb", ""},
		"Path and RawPath":                    {rewriting(func(u *url.URL) { u.Path, u.RawPath = "/b"+u.Path, "/b"+u.RawPath }), "/a|%2Fb", "/b/a|%2Fb"},
		"query":                               {rewriting(func(u *url.URL) { u.RawQuery = "n|" }), "/a|b?c", "/a|b?n|"},
		"query with a space":                  {rewriting(func(u *url.URL) { u.RawQuery = "n m" }), "/a", ""},
		"Opaque":                              {rewriting(func(u *url.URL) { u.Opaque = "/o|" }), "/a?b", "/o|?b"},
		"Opaque of two slashes":               {rewriting(func(u *url.URL) { u.Opaque = "//o" }), "/a", ""},
		"Opaque that is no path":              {rewriting(func(u *url.URL) { u.Opaque = "x:y" }), "/a", ""},
		"a query in RawPath":                  {rewriting(func(u *url.URL) { u.Path, u.RawPath = "/a?b", "/a?b" }), "/a", "/a%3Fb"},
		"Opaque in front":                     {changing(func(r *http.Request) { r.URL.Opaque = "/evil" }), "/a", ""},
		"no RequestURI":                       {changing(func(r *http.Request) { r.RequestURI = "" }), "/a|%2fb?c|", "/a|%2fb?c|"},
		"neither RequestURI nor path":         {changing(func(r *http.Request) { r.RequestURI, r.URL.Path = "", "" }), "/a", "/"},
		"path set in front":                   {changing(func(r *http.Request) { r.URL.Path = "/b c" }), "/a?d", "/b%20c?d"},
		"scheme set in front":                 {changing(func(r *http.Request) { r.URL.Scheme = "https" }), "/a|", "/a|"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(tt.handler)
			defer srv.Close()
			status, _ := overHTTP1(t, srv, "GET "+tt.target+" HTTP/1.1\nHost: t.test\n\n")
			if tt.want == "" {
				if status != 400 || len(seen) != 0 {
					t.Errorf("status %d, want 400", status)
				}
				return
			}
			if status != 204 {
				t.Fatalf("status %d", status)
			}
			if got := <-seen; !strings.HasPrefix(got, "GET "+tt.want+" HTTP/1.1\r\n") {
				t.Errorf("the backend read %q, want target %q", got, tt.want)
			}
		})
	}
}

// The handshake of a tunnel keeps to the same rules.
func TestTargetsOfTunnels(t *testing.T) {
	t.Parallel()
	backend, seen := readingHeads(t)
	srv, _ := serve(t, balancer.Static("a="+backend), nil)
	for target, want := range map[string]string{
		"/a|b%2fc?d|": "/a|b%2fc?d|", "//a%2fb": "//a%2fb", "http://h/a|%2f": "/a|%2f",
		"//a|b%2fc": "", "x:http://evil.test/admin": "", "ftp://h/x": "", "/a#b": "",
	} {
		status, _ := overHTTP1(t, srv, strings.Replace(handshake, "GET / ", "GET "+target+" ", 1))
		if want == "" {
			if status != 400 || len(seen) != 0 {
				t.Errorf("%s: status %d", target, status)
			}
			continue
		}
		if got := <-seen; status != 204 || !strings.HasPrefix(got, "GET "+want+" HTTP/1.1\r\n") {
			t.Errorf("%s: status %d, the backend read %q", target, status, got)
		}
	}
}

// ReverseProxy leaves Opaque as it is.
func TestStickyRefusesOpaqueTargets(t *testing.T) {
	t.Parallel()
	backend, seen := readingHeads(t)
	srv := behindReverseProxy(t, balancer.Static("a="+backend), &affinity.Hash{Key: &affinity.ClientAddr{}})
	for _, target := range []string{"x:http://evil.test/admin", "x:admin", "http:x"} {
		if status, _ := overHTTP1(t, srv, "GET "+target+" HTTP/1.1\nHost: t.test\n\n"); status < 400 || len(seen) != 0 {
			t.Errorf("%s: status %d, %d requests at the backend", target, status, len(seen))
		}
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	backend, seen := readingHeads(t)
	srv := bothVersions(t, newGateway(t, balancer.Static("a="+backend), nil))
	for host, good := range map[string]bool{
		"t.test": true, "T.Test:80": true, "t.test:": true, "127.0.0.1:1": true, "[::1]": true, "[2001:db8::1]:443": true, "a_b-c.test": true, "xn--bcher-kva.test": true,
		"t.test:x": false, ":-1": false, ":80": false, "t.test:1:2": false, "[::1": false, "[::1]x": false, "[::1]:x": false, "[]": false, "[": false, "]": false, "::1": false,
		"[127.0.0.1]": false, "[fe80::1%25en0]": false, "[fe80::1%en0]": false, "t%zz": false, "t%41": false, "t test": false, "t.test/x": false, "t#x": false, "t?x": false,
		`t\x`: false, "a@b": false, "@b": false, "a:b@c": false, "b\xc3\xbccher.test": false, "t\"x": false, "<t>": false,
	} {
		judge := func(status int, over string) {
			switch {
			case !good && (status == 204 || len(seen) != 0):
				t.Errorf("%s, host %q: status %d", over, host, status)
			case good && status != 204:
				t.Errorf("%s, host %q: status %d", over, host, status)
			case good:
				if got := <-seen; !strings.Contains(got, "\r\nHost: "+host+"\r\n") {
					t.Errorf("%s, host %q: the backend read %q", over, host, got)
				}
			}
		}
		status, _ := overHTTP1(t, srv, "GET / HTTP/1.1\nHost: "+host+"\n\n")
		judge(status, "HTTP/1")
		judge(overHTTP2(t, srv, "", ":method", "GET", ":scheme", "http", ":authority", host, ":path", "/"), "HTTP/2")
		judge(overHTTP2(t, srv, "", ":method", "GET", ":scheme", "http", ":path", "/", "host", host), "HTTP/2 without :authority")
	}
	// A client that names no host gets the backend's own.
	for _, request := range []string{"GET / HTTP/1.0\n\n", "GET / HTTP/1.0\nHost:\n\n", "GET / HTTP/1.1\nHost:\n\n"} {
		if status, _ := overHTTP1(t, srv, request); status != 204 {
			t.Errorf("%q: status %d", request, status)
		} else if got := <-seen; !strings.Contains(got, "\r\nHost: "+strings.TrimPrefix(backend, "http://")+"\r\n") {
			t.Errorf("%q: the backend read %q", request, got)
		}
	}
	if status, _ := overHTTP1(t, srv, "GET / HTTP/1.1\n\n"); status != 400 {
		t.Errorf("HTTP/1.1 without a host: status %d", status)
	}
}

// HTTP/2 frames what HTTP/1 would take for something else. net/http stops a part of
// it; what reaches the backend is harmless in any case.
func TestHTTP2Fields(t *testing.T) {
	t.Parallel()
	backend, seen := readingHeads(t)
	srv := bothVersions(t, newGateway(t, balancer.Static("a="+backend), nil))
	for name, tt := range map[string]struct {
		body   string
		fields []string
		good   bool
	}{
		"nothing odd":                  {"", nil, true},
		"the same host":                {"", []string{"host", "T.test"}, true},
		"another host":                 {"", []string{"host", "u.test"}, false},
		"two hosts":                    {"", []string{"host", "t.test", "host", "t.test"}, false},
		"a length":                     {"hello", []string{"content-length", "5"}, true},
		"the same length twice":        {"hello", []string{"content-length", "5", "content-length", "5"}, true},
		"two lengths":                  {"hello", []string{"content-length", "5", "content-length", "6"}, false},
		"a length that isn't one":      {"hello", []string{"content-length", "5x"}, false},
		"a list of lengths":            {"hello", []string{"content-length", "5,5"}, false},
		"a length and no body":         {"", []string{"content-length", "-1"}, false},
		"a coding":                     {"hello", []string{"transfer-encoding", "chunked"}, false},
		"a connection":                 {"", []string{"connection", "x"}, false},
		"TE":                           {"", []string{"te", "trailers, deflate"}, false},
		"a name in capitals":           {"", []string{"X", "y"}, false},
		"a name with a space":          {"", []string{"x y", "z"}, false},
		"a name with a colon":          {"", []string{"x:y", "z"}, false},
		"a name with a line's end":     {"", []string{"x\r\ny", "z"}, false},
		"no name":                      {"", []string{"", "z"}, false},
		"a value with a line's end":    {"", []string{"x", "y\r\nZ: a"}, false},
		"a value with a line feed":     {"", []string{"x", "y\nZ: a"}, false},
		"a value with a NUL":           {"", []string{"x", "y\x00"}, false},
		"another pseudo field":         {"", []string{":evil", "x"}, false},
		"a method with a line's end":   {"", []string{":method", "GET / HTTP/1.1\r\nX: y"}, false},
		"a method with a space":        {"", []string{":method", "GET /"}, false},
		"a method with a quote":        {"", []string{":method", `G"T`}, false},
		"an empty authority":           {"", []string{":authority", ""}, false},
		"a scheme that isn't http":     {"", []string{":scheme", "ftp"}, false},
		"a scheme with a line's end":   {"", []string{":scheme", "http\r\nX: y"}, false},
		"an authority with a line end": {"", []string{":authority", "t.test\r\nX: y"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			fields := []string{":method", "GET", ":scheme", "http", ":authority", "t.test", ":path", "/"}
			if len(tt.fields) > 0 && strings.HasPrefix(tt.fields[0], ":") {
				for i := 0; i < len(fields); i += 2 {
					if fields[i] == tt.fields[0] {
						fields[i+1] = tt.fields[1]
						tt.fields = nil
						break
					}
				}
			}
			status := overHTTP2(t, srv, tt.body, append(fields, tt.fields...)...)
			if tt.good != (status == 204) || !tt.good && len(seen) != 0 {
				t.Errorf("status %d, %d requests at the backend", status, len(seen))
			}
			if tt.good {
				want := "GET / HTTP/1.1\r\nHost: t.test\r\n"
				if tt.body != "" {
					want += "Content-Length: 5\r\n"
				}
				if got := <-seen; !strings.HasPrefix(got, want) {
					t.Errorf("the backend read %q", got)
				}
			}
		})
	}
}

// FuzzTarget passes requests of any target on. Whatever a handler in front sees of
// it is what the backend reads, in one request, or no backend is asked.
func FuzzTarget(f *testing.F) {
	for _, target := range []string{
		"/", "/a?b", "/a|b%2fc?d|", "//a|b%2f%2e%2e%2fc", "//a%2fb", "http://h/a|%2f?x", "HTTPS://h?x", "x:/admin", "x:admin", "*", "/a b", "/a#b", "http://a@h/", "/%zz", "/\xff", "/a??", "///",
	} {
		f.Add(target, false)
		f.Add("/app"+target, true)
	}
	reached := make(chan *http.Request, 2)
	pool := balancer.Static("a=http://backend.test")
	gw, err := limpet.NewGateway(pool, &limpet.Options{
		Affinity: &affinity.Hash{Key: &affinity.ClientAddr{}},
		Transport: &balancer.Transport{Dial: func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe()
			go func() {
				defer there.Close()
				var all bytes.Buffer
				if req, err := http.ReadRequest(bufio.NewReader(io.TeeReader(there, &all))); err == nil {
					if line, _, _ := strings.Cut(all.String(), "\r\n"); strings.Count(line, " ") != 2 {
						req.URL.Path = "request line " + line
					}
					reached <- req
				}
				io.WriteString(there, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
			}()
			return here, nil
		}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, target string, stripped bool) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: h\r\n\r\n")))
		if err != nil {
			t.Skip()
		}
		var front *http.Request
		var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			front = r
			gw.ServeHTTP(w, r)
		})
		if stripped {
			h = http.StripPrefix("/app", h)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 204 {
			if w.Code != 400 && w.Code != 404 || len(reached) != 0 {
				t.Fatalf("status %d, %d requests at the backend", w.Code, len(reached))
			}
			return
		}
		got := <-reached
		path, raw := front.URL.Path, front.URL.RawPath
		if path == "" {
			path = "/"
		}
		if got.URL.Path != path || got.URL.RawPath != raw || got.URL.RawQuery != front.URL.RawQuery || got.URL.ForceQuery != front.URL.ForceQuery || got.Host != front.Host {
			t.Errorf("in front %+v of %s, at the backend %+v of %s", front.URL, front.Host, got.URL, got.Host)
		}
		if !stripped && strings.HasPrefix(target, "/") && got.RequestURI != target {
			t.Errorf("target %q became %q", target, got.RequestURI)
		}
	})
}
