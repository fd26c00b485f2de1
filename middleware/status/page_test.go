package status

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// The page's files come with their types and with a policy that lets nothing in from
// elsewhere, and there are no others.
func TestPageFiles(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, kind, holds string }{
		{"", "text/html; charset=utf-8", "<!doctype html>"},
		{"style.css", "text/css; charset=utf-8", "prefers-color-scheme"},
		{"page.js", "text/javascript; charset=utf-8", "EventSource"},
		{"flow.js", "text/javascript; charset=utf-8", "ribbon"},
		{"limpet.svg", "image/svg+xml", "<svg"},
		{"../page.go", "", ""},
		{"page/page.js", "", ""},
		{"missing.js", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			page(w, httptest.NewRequest("GET", "/status/", nil), tt.name)
			if tt.kind == "" {
				if w.Code != http.StatusNotFound {
					t.Errorf("status %d, want 404", w.Code)
				}
				return
			}
			if got := w.Header().Get("Content-Type"); w.Code != http.StatusOK || got != tt.kind {
				t.Errorf("status %d, type %q; want 200, %q", w.Code, got, tt.kind)
			}
			if !strings.Contains(w.Body.String(), tt.holds) {
				t.Errorf("it doesn't hold %q", tt.holds)
			}
			policy := w.Header().Get("Content-Security-Policy")
			for _, want := range []string{"default-src 'none'", "script-src 'self'", "require-trusted-types-for 'script'", "frame-ancestors 'none'"} {
				if !strings.Contains(policy, want) {
					t.Errorf("policy %q, want %s", policy, want)
				}
			}
			if got := w.Header().Get("X-Content-Type-Options"); got != "nosniff" {
				t.Errorf("X-Content-Type-Options %q", got)
			}
		})
	}
}

// The page refers to nothing but files of its own, and holds no script, style or handler
// in its markup, which the policy would refuse.
func TestPageIsItsOwn(t *testing.T) {
	t.Parallel()
	html, err := pageFiles.ReadFile("page/index.html")
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"http:", "https:", "//", " style=", " onclick=", "<style", "<script>"} {
		if strings.Contains(strings.ReplaceAll(string(html), "<!--", ""), bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	files, err := pageFiles.ReadDir("page")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		content, err := pageFiles.ReadFile("page/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "@import"} {
			if strings.Contains(string(content), bad) {
				t.Errorf("%s has %q", f.Name(), bad)
			}
		}
	}
}

// Whatever the prefix, and whether a router strips it or not, a path without a slash at
// its end leads to the one with it, because all links are relative.
func TestPageUnderAnyPrefix(t *testing.T) {
	t.Parallel()
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { page(w, r, "") })
	mux := http.NewServeMux()
	mux.Handle("/plain", serve)
	mux.Handle("/plain/", serve)
	mux.Handle("/deep/down", http.StripPrefix("/deep/down", serve))
	mux.Handle("/deep/down/", http.StripPrefix("/deep/down", serve))
	site := httptest.NewServer(mux)
	t.Cleanup(site.Close)
	for _, tt := range []struct{ path, want string }{
		{"/plain", "/plain/"},
		{"/plain/", "/plain/"},
		{"/deep/down", "/deep/down/"},
		{"/deep/down/", "/deep/down/"},
		{"/plain?a=b", "/plain/?a=b"},
	} {
		t.Run(tt.path, func(t *testing.T) {
			res, err := site.Client().Get(site.URL + tt.path)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			if got := res.Request.URL.RequestURI(); got != tt.want || !strings.HasPrefix(string(body), "<!doctype html>") {
				t.Errorf("came to %s, %s", got, res.Status)
			}
		})
	}
}
