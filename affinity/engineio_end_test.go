package affinity_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/affinity"
)

// A request of a session is turned into the one that ends it, and others aren't.
func TestEngineIOEndsSessions(t *testing.T) {
	t.Parallel()
	e := &affinity.EngineIO{Secrets: testSecrets}
	for _, tt := range []struct{ name, open, query, body string }{
		{"version 4", "EIO=4&transport=polling", "EIO=4&transport=polling&sid=", "1"},
		{"version 3", "EIO=3&transport=polling", "EIO=3&transport=polling&sid=", "1:1"},
		{"JSONP", "EIO=4&transport=polling&j=0", "EIO=4&transport=polling&j=1&sid=", "d=1"},
		{"handshake", "EIO=4&transport=polling", "EIO=4&transport=websocket&sid=", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, a := range []affinity.Affinity{e, affinity.Chain{e, &affinity.Cookie{Secrets: testSecrets}}} {
				sid := openAt(t, a, tt.open)
				r := httptest.NewRequest("GET", "/socket.io/?"+tt.query+sid, nil)
				pin, err := a.Find(r)
				if err != nil {
					t.Fatal(err)
				}
				out := r.Clone(t.Context())
				out.Header = http.Header{"Content-Encoding": {"gzip"}, "Idempotency-Key": {"1"}, "Cookie": {"a=b"}}
				a.(affinity.Rewriter).Rewrite(out, pin)
				session := a.(affinity.SessionEnder).EndSession(out, pin)
				if tt.body == "" {
					if session != "" || out.Method != "GET" {
						t.Errorf("a %s ends %q", out.Method, session)
					}
					continue
				}
				body, _ := io.ReadAll(out.Body)
				if string(body) != tt.body || out.ContentLength != int64(len(body)) || out.Method != "POST" || len(out.Header) != 2 {
					t.Errorf("%s %q with %v", out.Method, body, out.Header)
				}
				if session == "" || strings.Contains(session, sid) || strings.Contains(out.URL.RawQuery, ".") {
					t.Errorf("session %q, query %q", session, out.URL.RawQuery)
				}
			}
		})
	}
}

// Who knows a session's ID can put it into the link of a page. A browser that follows the link
// must not have sent a POST, with its user's cookies, to whatever path the link has.
func TestEngineIOEndsNoSessionForALink(t *testing.T) {
	t.Parallel()
	e := &affinity.EngineIO{Secrets: testSecrets}
	sid := openAt(t, e, "EIO=4&transport=polling")
	for _, tt := range []struct {
		method, mode string
		ends         bool
	}{
		{"GET", "", true}, {"GET", "cors", true}, {"GET", "no-cors", true}, // JSONP's are no-cors
		{"POST", "", true}, {"POST", "navigate", true}, // JSONP sends its data by a form
		{"GET", "navigate", false}, {"HEAD", "", false}, {"PUT", "", false},
	} {
		r := httptest.NewRequest(tt.method, "/settings?EIO=4&transport=polling&sid="+sid, nil)
		if tt.mode != "" {
			r.Header.Set("Sec-Fetch-Mode", tt.mode)
		}
		pin, err := e.Find(r)
		if err != nil {
			t.Fatal(err)
		}
		out := r.Clone(t.Context())
		e.Rewrite(out, pin)
		if session := e.EndSession(out, pin); session != "" != tt.ends || !tt.ends && out.Method != tt.method {
			t.Errorf("%s of mode %q: %s ends %q", tt.method, tt.mode, out.Method, session)
		}
	}
}

// openAt opens a session with this query at a node and returns its sid as the client knows it.
func openAt(t *testing.T, a affinity.Affinity, query string) string {
	t.Helper()
	r := httptest.NewRequest("GET", "/socket.io/?"+query, nil)
	pin, err := a.Find(r)
	if err != nil {
		t.Fatal(err)
	}
	text := `0{"sid":"secret"}`
	if strings.Contains(query, "EIO=3") {
		text = "17:" + text
	}
	res := &http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: -1, Body: io.NopCloser(strings.NewReader(text))}
	if _, err := a.Bind(affinity.Answer{Response: res, Request: r, Found: pin, Home: "a"}); err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	_, sid, _ := strings.Cut(string(body), `"sid":"`)
	sid, _, _ = strings.Cut(sid, `"`)
	return sid
}
