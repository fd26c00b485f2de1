package status

import (
	"bytes"
	"embed"
	"net/http"
	"path"
	"strings"
	"time"
)

// pageFiles are the files of the page. They need nothing from elsewhere.
//
//go:embed page
var pageFiles embed.FS

// pagePolicy lets the page load its own files and talk to its own gateway, and nothing
// else. A backend's error can hold anything: with trusted types required, no script of the
// page can turn a string into markup.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// pageTypes are the media types of the page's files. Those of package mime depend on the
// machine.
var pageTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// page serves the file of the page that has the given name, "" for the page itself. All
// links within it are relative, so that it works under any prefix. For this reason the
// page's own path must end with a slash: page redirects a request whose path doesn't.
func page(w http.ResponseWriter, r *http.Request, name string) {
	if name == "" {
		target, query, _ := strings.Cut(r.RequestURI, "?")
		if !strings.HasSuffix(target, "/") {
			to := "./" + path.Base(target) + "/"
			if query != "" {
				to += "?" + query
			}
			w.Header().Set("Location", to) // http.Redirect would resolve it by r.URL, which a prefix may have been stripped from
			w.WriteHeader(http.StatusTemporaryRedirect)
			return
		}
		name = "index.html"
	}
	content, err := pageFiles.ReadFile("page/" + name)
	if err != nil || strings.Contains(name, "/") {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", pageTypes[path.Ext(name)])
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache") // embedded files have no date to compare
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(content))
}
