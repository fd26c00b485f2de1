package status_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"
)

// The handler works under any path and in any router, whether the prefix is stripped or not.
func TestMounts(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a", nil, nil)
	under := func(prefix string, h http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.Handle(prefix, h)
		return mux
	}
	nested := chi.NewRouter()
	nested.Route("/ops/{team}", func(r chi.Router) { r.Mount("/limpet", g.status) })
	flat := chi.NewRouter()
	flat.Mount("/limpet", g.status)
	below := chi.NewRouter()
	below.Route("/api/v1", func(r chi.Router) { r.Mount("/limpet", g.status) })
	for name, tt := range map[string]struct {
		h     http.Handler
		mount string
	}{
		"chi, below api":       {below, "/api/v1/limpet"},
		"chi":                  {flat, "/limpet"},
		"chi, nested":          {nested, "/ops/red/limpet"},
		"ServeMux":             {under("/limpet/", g.status), "/limpet"},
		"ServeMux, below api":  {under("/api/limpet/", g.status), "/api/limpet"},
		"StripPrefix":          {under("/limpet/", http.StripPrefix("/limpet", g.status)), "/limpet"},
		"StripPrefix with a /": {under("/limpet/", http.StripPrefix("/limpet/", g.status)), "/limpet"},
		"at the root":          {g.status, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(tt.h)
			t.Cleanup(srv.Close)
			c := srv.Client()
			for path, kind := range map[string]string{
				"/":               "text/html",
				"/style.css":      "text/css",
				"/page.js":        "text/javascript",
				"/api/":           "application/json",
				"/api/state":      "application/json",
				"/api/backends/a": "application/json",
			} {
				res, err := c.Get(srv.URL + tt.mount + path)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				if res.StatusCode != 200 || !strings.HasPrefix(res.Header.Get("Content-Type"), kind) {
					t.Errorf("%s: %d, %s", path, res.StatusCode, res.Header.Get("Content-Type"))
				}
			}
			if tt.mount == "" {
				return
			}
			res, err := c.Get(srv.URL + tt.mount + "?x=1") // the client follows the redirect
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if got := res.Request.URL.RequestURI(); res.StatusCode != 200 || got != tt.mount+"/?x=1" {
				t.Errorf("without the slash: %d at %s", res.StatusCode, got)
			}
		})
	}
}

// What isn't there is said so, in JSON under api/, and HEAD is a GET without the body.
func TestMethodsAndPaths(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a", nil, nil)
	for _, tt := range []struct {
		method, path string
		want         int
		says         string
	}{
		{"HEAD", "/limpet/api/state", 200, ""},
		{"HEAD", "/limpet/api/events", 200, ""},
		{"HEAD", "/limpet/", 200, ""},
		{"GET", "/limpet/api/states", 404, "there is no such call"},
		{"GET", "/limpet/api/backends/x", 404, `no backend \"x\"`},
		{"GET", "/limpet/api/backends/a/dräin", 404, "there is no such call"},
		{"GET", "/limpet/api/backends/a/drain", 405, "POST"},
		{"POST", "/limpet/api/state", 405, "GET"},
		{"DELETE", "/limpet/", 405, "GET"},
		{"GET", "/limpet/nothing.js", 404, ""},
	} {
		req, _ := http.NewRequestWithContext(t.Context(), tt.method, g.srv.URL+tt.path, nil)
		res, err := g.srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body := read(t, res)
		if res.StatusCode != tt.want || !strings.Contains(body, tt.says) {
			t.Errorf("%s %s: %d %s", tt.method, tt.path, res.StatusCode, body)
		}
		if tt.want == 405 && res.Header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", tt.method, tt.path)
		}
	}
}

// A backend's ID may be that of a call.
func TestBackendNamedLikeACall(t *testing.T) {
	t.Parallel()
	g := newRig(t, "api state", nil, nil)
	for _, id := range []string{"api", "state"} {
		if b := g.backend(id); b.ID != id {
			t.Errorf("asked for %s, got %s", id, b.ID)
		}
	}
}

// Nobody keeps an answer of the API, no page frames it, and no page of another origin reads it.
func TestHeader(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a", nil, nil)
	for _, path := range []string{"state", "", "backends/x"} {
		h := g.call("GET", path, "").header
		for name, want := range map[string]string{
			"Cache-Control":                "no-store",
			"X-Content-Type-Options":       "nosniff",
			"Content-Security-Policy":      "default-src 'none'; frame-ancestors 'none'",
			"Referrer-Policy":              "no-referrer",
			"Cross-Origin-Resource-Policy": "same-origin",
			"Access-Control-Allow-Origin":  "",
		} {
			if got := h.Get(name); got != want {
				t.Errorf("%q: %s is %q, want %q", path, name, got, want)
			}
		}
	}
}
