package middleware_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// secretError is an error whose text no client may see.
var secretError = &balancer.Error{Backend: "node-7", Err: errors.New("dial tcp 10.9.8.7:3000: secret")}

// refused returns the answer of handler to a request that failed with err.
func refused(t *testing.T, handler func(http.ResponseWriter, *http.Request, error), err error, method, accept string, set http.Header) (*http.Response, string) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, values := range set {
			w.Header()[name] = values
		}
		handler(w, r, err)
	}))
	defer srv.Close()
	req, _ := http.NewRequestWithContext(t.Context(), method, srv.URL, nil)
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	res, failure := srv.Client().Do(req)
	if failure != nil {
		t.Fatal(failure)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return res, string(body)
}

func errorPages(t *testing.T, fsys fs.FS) func(http.ResponseWriter, *http.Request, error) {
	t.Helper()
	handler, err := limpet.ErrorPages(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return handler
}

// The gateway's own answers have the format that the client prefers.
func TestErrorPageFormats(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, nil)
	srv, _ := serve(t, pool, &limpet.Options{ModifyResponse: func(*http.Response) error { return secretError }})
	const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	for _, tt := range []struct {
		name, accept, media, body string
	}{
		{"no Accept", "", "text/plain; charset=utf-8", "Bad Gateway\n"},
		{"curl, Socket.IO", "*/*", "text/plain; charset=utf-8", "Bad Gateway\n"},
		{"only images", "image/png", "text/plain; charset=utf-8", "Bad Gateway\n"},
		{"an API's client", "application/json, text/plain, */*", "application/json; charset=utf-8", `{"error":"Bad Gateway","status":502}` + "\n"},
		{"a browser", browser, "text/html; charset=utf-8", "<h1><b>502</b> Bad Gateway</h1>"},
	} {
		for _, method := range []string{"GET", "HEAD", "POST"} {
			t.Run(tt.name+"/"+method, func(t *testing.T) {
				t.Parallel()
				req, _ := http.NewRequestWithContext(t.Context(), method, srv.URL, nil)
				if tt.accept != "" {
					req.Header.Set("Accept", tt.accept)
				}
				res, err := srv.Client().Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				body, _ := io.ReadAll(res.Body)
				h := res.Header
				if res.StatusCode != 502 || h.Get("Content-Type") != tt.media || h.Get("X-Content-Type-Options") != "nosniff" ||
					h.Get("Cache-Control") != "no-store" || h.Get("Vary") != "Accept" || h.Get("Retry-After") != "" {
					t.Errorf("%s with %v", res.Status, h)
				}
				policy := h.Get("Content-Security-Policy")
				if html := strings.HasPrefix(tt.media, "text/html"); html != strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") {
					t.Errorf("Content-Security-Policy: %q", policy)
				}
				switch {
				case method == "HEAD" && (len(body) > 0 || res.ContentLength <= 0):
					t.Errorf("a HEAD is answered with %q, Content-Length %d", body, res.ContentLength)
				case method != "HEAD" && (!strings.Contains(string(body), tt.body) || policy == "" && string(body) != tt.body):
					t.Errorf("body %q, want %q", body, tt.body)
				}
				if strings.Contains(string(body), "10.9.8.7") || h.Get("Node") != "" {
					t.Errorf("the answer tells what failed: %v, %q", h, body)
				}
			})
		}
	}
}

// Each status has its name, a 503 says when to come again, and nothing tells the error.
func TestErrorPageStatuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err    error
		status int
		text   string
	}{
		{secretError, 502, "Bad Gateway"},
		{fmt.Errorf("%w: %w", balancer.ErrNoBackend, secretError), 503, "Service Unavailable"},
		{fmt.Errorf("secret: %w", context.DeadlineExceeded), 504, "Gateway Timeout"},
		{&http.MaxBytesError{Limit: 7}, 413, "Request Entity Too Large"},
		{fmt.Errorf("secret: %w", context.Canceled), 499, "Client Closed Request"},
	} {
		for _, accept := range []string{"text/plain", "application/json", "text/html"} {
			res, body := refused(t, errorPages(t, nil), tt.err, "GET", accept, nil)
			if res.StatusCode != tt.status || !strings.Contains(body, tt.text) {
				t.Errorf("%v: %s with %q", tt.err, res.Status, body)
			}
			if again := res.Header.Get("Retry-After"); (again == "1") != (tt.status == 503) {
				t.Errorf("%d: Retry-After %q", tt.status, again)
			}
			for _, secret := range []string{"secret", "10.9.8.7", "node-7"} {
				if strings.Contains(body, secret) {
					t.Errorf("the %s tells %q: %q", accept, secret, body)
				}
			}
		}
	}
}

// Files replace pages by status before class, and for their format only.
func TestErrorPageFiles(t *testing.T) {
	t.Parallel()
	handler := errorPages(t, fstest.MapFS{
		"502.html":         {Data: []byte(`<p title="{{id}}">{{status}}: {{text}}, {{hint}}</p>{{id}}`)},
		"5xx.html":         {Data: []byte("any {{status}}")},
		"5xx.json":         {Data: []byte(`{"code":{{status}},"id":"{{id}}","braces":{"a":{}}}`)},
		"4xx.txt":          {Data: []byte("{{status}} {{id}}")},
		".hidden":          {Data: []byte("\xff")},
		"..data/502.html":  {Data: []byte("a mounted ConfigMap has such a folder")},
		"images/404.jpeg":  {Data: []byte("\xff\xd8")},
		"..2026/5xx.json":  {Data: []byte("{")},
		"images/502.html":  {Data: []byte("{{what}}")},
		"images/5xx.plain": {Data: []byte("")},
	})
	const evil = `<i>"'&\` + "`"
	for _, tt := range []struct {
		name, accept string
		err          error
		want         string
	}{
		{"the status's own", "text/html", secretError,
			"<p title=\"&#60;i&#62;&#34;&#39;&#38;&#92;&#96;\">502: Bad Gateway, The service failed to answer. Please try again.</p>&#60;i&#62;&#34;&#39;&#38;&#92;&#96;"},
		{"the class's", "text/html", balancer.ErrNoBackend, "any 503"},
		{"JSON", "application/json", secretError, `{"code":502,"id":"\u003ci\u003e\"'\u0026\\` + "`" + `","braces":{"a":{}}}`},
		{"text of the class", "text/plain", &http.MaxBytesError{}, "413 " + evil},
		{"text that is built in", "text/plain", secretError, "Bad Gateway\nRequest ID: " + evil + "\n"},
		{"JSON that is built in", "application/json", &http.MaxBytesError{}, `{"error":"Request Entity Too Large","status":413,"request_id":"\u003ci\u003e\"'\u0026\\` + "`\"}\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			res, body := refused(t, handler, tt.err, "GET", tt.accept, http.Header{"X-Request-Id": {evil}})
			if body != tt.want {
				t.Errorf("body %q, want %q", body, tt.want)
			}
			if tt.accept == "application/json" {
				var v struct{ ID, Request_ID string }
				if err := json.Unmarshal([]byte(body), &v); err != nil || v.ID+v.Request_ID != evil {
					t.Errorf("the JSON says %+v, %v", v, err)
				}
			}
			if policy := res.Header.Get("Content-Security-Policy"); tt.accept == "text/html" && (!strings.HasPrefix(policy, "default-src 'none'; img-src 'self'") || strings.Contains(policy, "script")) {
				t.Errorf("Content-Security-Policy: %q", policy)
			}
		})
	}
}

// What handlers in front have set holds, or gives way where it belongs to another answer.
func TestErrorPageBehindHandlers(t *testing.T) {
	t.Parallel()
	set := func() http.Header {
		return http.Header{
			"Content-Security-Policy": {"script-src 'self'"},
			"Vary":                    {"Origin"},
			"Content-Length":          {"3"},
			"Content-Type":            {"image/png"},
			"Cache-Control":           {"max-age=60"},
		}
	}
	for _, tt := range []struct {
		name   string
		fsys   fs.FS
		policy string // its beginning
	}{
		{"built in", nil, "default-src 'none'; style-src 'sha256-"},
		{"a file", fstest.MapFS{"502.html": {Data: []byte("x")}}, "script-src 'self'"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			res, body := refused(t, errorPages(t, tt.fsys), secretError, "GET", "text/html", set())
			h := res.Header
			if !strings.HasPrefix(h.Get("Content-Security-Policy"), tt.policy) || len(h["Content-Security-Policy"]) != 1 {
				t.Errorf("Content-Security-Policy: %q", h["Content-Security-Policy"])
			}
			if strings.Join(h["Vary"], ", ") != "Origin, Accept" || h.Get("Cache-Control") != "no-store" ||
				h.Get("Content-Type") != "text/html; charset=utf-8" || res.ContentLength != int64(len(body)) && res.ContentLength != -1 {
				t.Errorf("header %v, body of %d bytes", h, len(body))
			}
		})
	}
}

// A mistake in the files shows when the gateway is made, not when a backend fails.
func TestErrorPageMistakes(t *testing.T) {
	t.Parallel()
	broken := filepath.Join(t.TempDir(), "pages")
	if err := os.Mkdir(broken, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere.html", filepath.Join(broken, "502.html")); err != nil {
		t.Fatal(err)
	}
	file := func(name, text string) fs.FS { return fstest.MapFS{name: {Data: []byte(text)}} }
	for _, tt := range []struct {
		name string
		fsys fs.FS
		says string
	}{
		{"no folder", os.DirFS(filepath.Join(broken, "not there")), "no such file"},
		{"a link to nowhere", os.DirFS(broken), "502.html"},
		{"an empty folder", fstest.MapFS{}, "5xx.json"},
		{"another ending", file("502.htm", "x"), "502.html"},
		{"a success", file("200.html", "x"), "200.html"},
		{"a status without a body", file("304.html", "x"), "304.html"},
		{"all statuses", file("xxx.html", "x"), "5xx.html"},
		{"in capitals", file("5XX.html", "x"), "5xx.html"},
		{"an unknown word", file("502.html", "{{reason}}"), "{{reason}}"},
		{"a word of a template", file("502.html", "{{ .Status }}"), "{{status}}"},
		{"no end", file("502.html", "a {{status"), "}}"},
		{"not UTF-8", file("502.txt", "caf\xe9"), "UTF-8"},
		{"no JSON", file("502.json", "{"), "JSON"},
		{"an ID outside a string", file("502.json", `{"id":{{id}}}`), "within strings"},
		{"a text outside a string", file("502.json", `{"id":{{text}}}`), "within strings"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			handler, err := limpet.ErrorPages(tt.fsys)
			if err == nil || handler != nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want an error that says %q", err, tt.says)
			}
		})
	}
}

// The pages work for a proxy that the service has already.
func TestErrorPagesOverSticky(t *testing.T) {
	t.Parallel()
	proxy := &httputil.ReverseProxy{
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetXForwarded() },
		Transport:    &limpet.Sticky{Pool: balancer.Static("a=http://127.0.0.1:1"), Logger: slog.New(slog.DiscardHandler)},
		ErrorHandler: errorPages(t, fstest.MapFS{"503.json": {Data: []byte(`{"sorry":"{{text}}"}`)}}),
	}
	srv := httptest.NewServer(proxy)
	t.Cleanup(srv.Close)
	req, _ := http.NewRequestWithContext(t.Context(), "GET", srv.URL, nil)
	req.Header.Set("Accept", "application/json")
	res, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); res.StatusCode != 503 || string(body) != `{"sorry":"Service Unavailable"}` {
		t.Errorf("%s with %q", res.Status, body)
	}
}

// The page tells the ID that the answer's field has, whatever the field's name.
func TestErrorPageRequestID(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, field string
		sent        string // by the client
		known       bool   // the page tells it
	}{
		{"the client's", "Correlation-Id", "of-the-client", true},
		{"the gateway's", "Correlation-Id", "", true},
		{"unsound", "Correlation-Id", "a b", true},
		{"none", "", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv, _ := serve(t, balancer.Static("a=http://127.0.0.1:1"), &limpet.Options{RequestID: tt.field})
			req, _ := http.NewRequestWithContext(t.Context(), "GET", srv.URL, nil)
			req.Header.Set("Accept", "application/json")
			if tt.sent != "" {
				req.Header.Set(tt.field, tt.sent)
			}
			res, err := srv.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			var page struct {
				Error     string
				RequestID string `json:"request_id"`
			}
			if err := json.NewDecoder(res.Body).Decode(&page); err != nil {
				t.Fatal(err)
			}
			if id := res.Header.Get("Correlation-Id"); page.RequestID != id || (id != "") != tt.known || tt.sent == "of-the-client" && id != tt.sent {
				t.Errorf("the page tells %q, the field %q", page.RequestID, id)
			}
		})
	}
}
