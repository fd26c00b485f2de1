package middleware_test

import (
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/coder/websocket"

	limpet "github.com/limpet-go/limpet/middleware"
)

// handshakeOf returns a WebSocket's handshake as a handler gets it. fields are "Name: value"
// or "Host: value", in order.
func handshakeOf(fields ...string) *http.Request {
	r := httptest.NewRequest("GET", "/socket.io/?EIO=4&transport=websocket", nil)
	r.RemoteAddr = "192.0.2.1:1234"
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	setFields(r, fields)
	return r
}

func setFields(r *http.Request, fields []string) {
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		if name == "Host" {
			r.Host = value
			continue
		}
		r.Header.Add(name, value)
	}
}

// passes reports whether a request gets through o, and checks the answer if it doesn't.
func passes(t *testing.T, o *limpet.Origin, r *http.Request) bool {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	passed := false
	w := httptest.NewRecorder()
	o.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { passed = true })).ServeHTTP(w, r)
	if !passed && (w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "origin")) {
		t.Errorf("refused with %d %q", w.Code, w.Body)
	}
	return passed
}

func TestOriginOfHandshakes(t *testing.T) {
	t.Parallel()
	const page, host = "Origin: https://example.com", "Host: example.com"
	for _, tt := range []struct {
		name   string
		allow  string
		fields []string
		want   bool
	}{
		{"same origin", "", []string{host, page}, true},
		{"another site", "", []string{host, "Origin: https://evil.test"}, false},
		{"a sibling", "", []string{host, "Origin: https://www.example.com"}, false},
		{"case", "", []string{"Host: EXAMPLE.com", "Origin: https://Example.COM"}, true},
		{"default port, explicit in the Host", "", []string{"Host: example.com:443", page}, true},
		{"default port, explicit in the Origin", "", []string{host, "Origin: https://example.com:443"}, true},
		{"empty port in the Host", "", []string{"Host: example.com:", page}, true},
		{"another port", "", []string{"Host: example.com:8443", page}, false},
		{"the other scheme's port", "", []string{"Host: example.com:80", page}, false},
		{"IPv6", "", []string{"Host: [2001:db8::1]:3000", "Origin: http://[2001:DB8:0::1]:3000"}, true},
		{"another IPv6", "", []string{"Host: [2001:db8::1]", "Origin: http://[2001:db8::2]"}, false},
		{"dot at the end", "", []string{host, "Origin: https://example.com."}, false},
		{"dot at both ends", "", []string{"Host: example.com.", "Origin: https://example.com."}, true},
		{"user information", "", []string{host, "Origin: https://example.com@evil.test"}, false},
		{"user information, our host last", "", []string{host, "Origin: https://evil.test@example.com"}, false},
		{"a path", "", []string{host, "Origin: https://example.com/"}, false},
		{"a list", "", []string{host, "Origin: https://example.com https://evil.test"}, false},
		{"several lines", "", []string{host, page, "Origin: https://evil.test"}, false},
		{"several lines, the same", "", []string{host, page, page}, false},
		{"empty", "", []string{host, "Origin: "}, false},
		{"no scheme", "", []string{host, "Origin: example.com"}, false},
		{"null", "", []string{host, "Origin: null"}, false},
		{"null, and no Host", "", []string{"Host: ", "Origin: null"}, false},
		{"null, named", "null", []string{host, "Origin: null"}, true},
		{"no null", "null", []string{host, "Origin: null://"}, false},
		{"none: a program", "", []string{host}, true},

		{"browser: same origin", "", []string{"Host: internal:3000", page, "Sec-Fetch-Site: same-origin"}, true},
		{"browser: http page of the same host", "", []string{host, "Origin: http://example.com", "Sec-Fetch-Site: cross-site"}, false},
		{"browser: same site", "", []string{host, page, "Sec-Fetch-Site: same-site"}, false},
		{"browser: allowed", "https://www.example.com", []string{host, "Origin: https://www.example.com", "Sec-Fetch-Site: same-site"}, true},
		{"browser: an extension", "", []string{host, "Origin: chrome-extension://abc", "Sec-Fetch-Site: none"}, false},
		{"browser: several lines", "", []string{host, "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"}, false},

		{"exact", "https://www.example.com", []string{host, "Origin: https://www.example.com"}, true},
		{"exact, default port", "https://www.example.com:443", []string{host, "Origin: https://www.example.com"}, true},
		{"exact, another scheme", "https://www.example.com", []string{host, "Origin: http://www.example.com"}, false},
		{"exact, below", "https://www.example.com", []string{host, "Origin: https://a.www.example.com"}, false},
		{"an app", "capacitor://localhost", []string{host, "Origin: capacitor://localhost"}, true},
		{"an app's file", "file://", []string{host, "Origin: file://"}, true},
		{"wildcard", "https://*.example.org", []string{host, "Origin: https://a.example.org"}, true},
		{"wildcard, two labels", "https://*.example.org", []string{host, "Origin: https://b.a.EXAMPLE.org"}, true},
		{"wildcard, no label", "https://*.example.org", []string{host, "Origin: https://example.org"}, false},
		{"wildcard, empty label", "https://*.example.org", []string{host, "Origin: https://.example.org"}, false},
		{"wildcard, suffix only", "https://*.example.org", []string{host, "Origin: https://evil-example.org"}, false},
		{"wildcard, as a label", "https://*.example.org", []string{host, "Origin: https://a.example.org.evil.test"}, false},
		{"wildcard, dot at the end", "https://*.example.org", []string{host, "Origin: https://a.example.org."}, false},
		{"wildcard, another scheme", "https://*.example.org", []string{host, "Origin: http://a.example.org"}, false},
		{"wildcard, another port", "https://*.example.org", []string{host, "Origin: https://a.example.org:8443"}, false},
		{"wildcard, the port", "https://*.example.org:8443", []string{host, "Origin: https://a.example.org:8443"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := &limpet.Origin{ClientIP: proxies}
			if tt.allow != "" {
				o.Allow = []string{tt.allow}
			}
			if got := passes(t, o, handshakeOf(tt.fields...)); got != tt.want {
				t.Errorf("passed: %v, want %v", got, tt.want)
			}
		})
	}
}

// Where the scheme of the client's connection is known it counts, and a trusted proxy says
// which host the client has named.
func TestOriginBehindProxies(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, peer string
		tls        bool
		fields     []string
		want       bool
	}{
		{"http page to TLS", "192.0.2.1:1", true, []string{"Origin: http://example.com"}, false},
		{"http page to TLS, by its port", "192.0.2.1:1", true, []string{"Host: example.com:80", "Origin: http://example.com"}, false},
		{"https page to TLS", "192.0.2.1:1", true, []string{"Origin: https://example.com"}, true},
		{"nobody knows", "192.0.2.1:1", false, []string{"Origin: https://example.com"}, true},
		{"trusted: https", "10.0.0.1:1", false, []string{"Origin: https://example.com", "X-Forwarded-Proto: https"}, true},
		{"trusted: wss", "10.0.0.1:1", false, []string{"Origin: https://example.com", "X-Forwarded-Proto: wss"}, true},
		{"trusted: http page to https", "10.0.0.1:1", false, []string{"Origin: http://example.com", "X-Forwarded-Proto: https"}, false},
		{"trusted: https page to http", "10.0.0.1:1", false, []string{"Origin: https://example.com", "X-Forwarded-Proto: http"}, false},
		{"untrusted proto", "192.0.2.1:1", false, []string{"Origin: http://example.com", "X-Forwarded-Proto: https"}, true},
		{"trusted host", "10.0.0.1:1", false, []string{"Host: internal:3000", "X-Forwarded-Host: example.com", "Origin: https://example.com"}, true},
		{"trusted host, not the inner one", "10.0.0.1:1", false, []string{"X-Forwarded-Host: shop.test", "Origin: https://example.com"}, false},
		{"trusted host, what the nearest proxy says", "10.0.0.1:1", false, []string{"X-Forwarded-Host: evil.test, example.com", "Origin: https://evil.test"}, false},
		{"untrusted host", "192.0.2.1:1", false, []string{"X-Forwarded-Host: evil.test", "Origin: https://evil.test"}, false},
		{"a host that is none", "10.0.0.1:1", false, []string{"X-Forwarded-Host: a@example.com", "Origin: https://example.com"}, false},
		{"a page with a forged host", "10.0.0.1:1", false, []string{"X-Forwarded-Host: evil.test", "Origin: https://evil.test", "Sec-Fetch-Site: cross-site"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := handshakeOf(tt.fields...)
			r.RemoteAddr = tt.peer
			if tt.tls {
				r.TLS = &tls.ConnectionState{}
			}
			if got := passes(t, &limpet.Origin{ClientIP: proxies}, r); got != tt.want {
				t.Errorf("passed: %v, want %v", got, tt.want)
			}
		})
	}
}

// Which requests are judged at all. All of these come from another site's page.
func TestOriginCovers(t *testing.T) {
	t.Parallel()
	const polling = "/socket.io/?EIO=4&transport=polling"
	for _, tt := range []struct {
		name, method, target string
		fields               []string
		origin               *limpet.Origin
		want                 bool
	}{
		{"a page", "GET", "/", nil, &limpet.Origin{Polling: true, Unsafe: true}, true},
		{"a poll", "GET", polling, nil, &limpet.Origin{}, true},
		{"a poll, judged", "GET", polling, nil, &limpet.Origin{Polling: true}, false},
		{"a post of polling, judged", "POST", polling + "&sid=x", nil, &limpet.Origin{Polling: true}, false},
		{"a poll, escaped", "GET", "/socket.io/?EIO=4&%74ransport=polling", nil, &limpet.Origin{Polling: true}, false},
		{"a poll, escaped badly", "GET", "/socket.io/?%zz=%&tr%61nsport=polling&%4", nil, &limpet.Origin{Polling: true}, false},
		{"another escape", "GET", "/?q=%74rans%70art", nil, &limpet.Origin{Polling: true}, true},
		{"preflight", "OPTIONS", polling, nil, &limpet.Origin{Polling: true, Unsafe: true}, true},
		{"a form", "POST", "/", nil, &limpet.Origin{}, true},
		{"a form, judged", "POST", "/", nil, &limpet.Origin{Unsafe: true}, false},
		{"another method, judged", "PURGE", "/", nil, &limpet.Origin{Unsafe: true}, false},
		{"another protocol", "GET", "/", []string{"Upgrade: tcp"}, &limpet.Origin{}, false},
		{"no Connection field", "GET", "/", []string{"Upgrade: websocket"}, &limpet.Origin{}, false},
		{"an odd method", "POST", "/", []string{"Upgrade: websocket"}, &limpet.Origin{}, false},
		{"over HTTP/2", "CONNECT", "/", nil, &limpet.Origin{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(tt.method, "http://example.com/", nil)
			r.URL.Path, r.URL.RawQuery, _ = strings.Cut(tt.target, "?")
			setFields(r, append(tt.fields, "Origin: https://evil.test"))
			if got := passes(t, tt.origin, r); got != tt.want {
				t.Errorf("passed: %v, want %v", got, tt.want)
			}
		})
	}
}

// A script or an image of another site's page has no Origin, but the browser says that it is
// one. A page of this origin has none either, in its plain requests.
func TestOriginWithoutOrigin(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, site        string
		optional, require bool
	}{
		{"a script of another site", "cross-site", false, false},
		{"a script of a sibling", "same-site", false, false},
		{"unknown", "future", false, false},
		{"own page", "same-origin", true, true},
		{"typed by the user", "none", true, true},
		{"no browser, or an old one", "", true, false},
	} {
		for _, required := range []bool{false, true} {
			r := httptest.NewRequest("GET", "/socket.io/?EIO=3&transport=polling&j=0", nil)
			if tt.site != "" {
				r.Header.Set("Sec-Fetch-Site", tt.site)
			}
			want := tt.optional
			if required {
				want = tt.require
			}
			if got := passes(t, &limpet.Origin{Polling: true, Required: required}, r); got != want {
				t.Errorf("%s, required %v: passed %v", tt.name, required, got)
			}
		}
	}
}

func TestOriginReports(t *testing.T) {
	t.Parallel()
	for _, reportOnly := range []bool{false, true} {
		var log strings.Builder
		var told []string
		o := &limpet.Origin{
			ReportOnly: reportOnly,
			Refused:    func(r *http.Request, err error) { told = append(told, err.Error()) },
			Logger:     slog.New(slog.NewTextHandler(&log, nil)),
		}
		passed := 0
		h := o.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { passed++ }))
		h.ServeHTTP(httptest.NewRecorder(), handshakeOf("Origin: https://example.com"))
		const many = 100
		for range many {
			h.ServeHTTP(httptest.NewRecorder(), handshakeOf("Origin: https://evil.test"))
		}
		s := o.Stats()
		want := limpet.OriginStats{Refused: many}
		if reportOnly {
			want = limpet.OriginStats{Reported: many}
		}
		if s != want || passed != 1+int(s.Reported) {
			t.Errorf("report only %v: %+v, and %d passed", reportOnly, s, passed)
		}
		if len(told) != many || !strings.Contains(told[0], "evil.test") || !strings.Contains(told[0], "Allow") {
			t.Errorf("the hook was told %d times, first %q", len(told), told)
		}
		// One line a second: more than a few would be one for each request.
		if n := strings.Count(log.String(), "\n"); n < 1 || n > many/2 {
			t.Errorf("%d lines were logged", n)
		}
	}
}

func TestOriginFindsMistakes(t *testing.T) {
	t.Parallel()
	for _, entry := range []string{
		"", "*", "example.com", "https://", "https://example.com/", "https://*", "https://*.com", "https://*example.com", "https://a.*.example.com",
		"https://*.*.example.com", "https://user@example.com", "https://bücher.example", "https://example.com:port", "https://example.com:99999", "*.example.com", "https://*.[::1]",
	} {
		func() {
			defer func() {
				if err, _ := recover().(error); err == nil || !strings.Contains(err.Error(), "Allow has") {
					t.Errorf("%q: %v", entry, err)
				}
			}()
			(&limpet.Origin{Allow: []string{entry}}).Handler(http.NotFoundHandler())
		}()
	}
}

// A real client in front of a real gateway.
func TestOriginInFrontOfGateway(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}); err == nil {
			c.CloseNow()
		}
	}))
	o := &limpet.Origin{Logger: slog.New(slog.DiscardHandler)}
	srv := httptest.NewServer(o.Handler(newGateway(t, pool, nil)))
	t.Cleanup(srv.Close)
	for origin, want := range map[string]int{"": 101, srv.URL: 101, "http://evil.test": 403} {
		header := http.Header{}
		if origin != "" {
			header.Set("Origin", origin)
		}
		c, res, err := websocket.Dial(t.Context(), srv.URL, &websocket.DialOptions{HTTPHeader: header})
		if res == nil || res.StatusCode != want {
			t.Errorf("origin %q: %v, %v, want %d", origin, res, err, want)
		}
		if c != nil {
			c.CloseNow()
		}
	}
}

func FuzzOrigin(f *testing.F) {
	f.Add("https://example.com")
	f.Add("https://[::1]:80")
	f.Add("https://a.example.org@x")
	o := &limpet.Origin{Allow: []string{"https://*.example.org"}, Logger: slog.New(slog.DiscardHandler)}
	harmless := regexp.MustCompile(`(?i)^(https?://example\.com(:0*80|:0*443)?|https://[^@/\\ ]+\.example\.org(:0*443)?)$`)
	passed := false
	h := o.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { passed = true }))
	f.Fuzz(func(t *testing.T, origin string) {
		passed = false
		h.ServeHTTP(httptest.NewRecorder(), handshakeOf("Host: example.com", "Origin: "+origin))
		if passed && !harmless.MatchString(origin) {
			t.Errorf("%q passed", origin)
		}
	})
}
