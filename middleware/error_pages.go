package middleware

import (
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"

	"github.com/limpet-go/limpet/internal/httpfield"
)

// ErrorPages returns a handler that answers a request which failed, for
// [Options].ErrorHandler, or for the ErrorHandler of an httputil.ReverseProxy over
// [Sticky]. A Gateway without an ErrorHandler uses ErrorPages(nil).
//
// The answer has the status that [StatusCode] returns for the error, and is plain text,
// JSON or HTML, whichever the client's Accept prefers: text for */*, which Socket.IO's
// clients and curl send, and if the client accepts none of them. It says the status, its
// name and the request's ID, and with 503 it has a Retry-After of one second. It never
// says which backend has failed or why: the log has that.
//
// Files in the root of fsys replace the pages, as HAProxy's errorfile does. They are
// named by a status and a format, such as 502.html, 502.json and 502.txt, or by a class
// of them, such as 5xx.html for those of 500 to 599 that have no file. A status and format
// without a file has the page that is built in. fsys is read only once; nil has no files.
// In a file, these words stand for something else:
//
//	{{status}}  the status, such as 502
//	{{text}}    its name, such as Bad Gateway
//	{{hint}}    a sentence for people, such as: The service failed to answer. Please try again.
//	{{id}}      the request's ID, "" if it has none
//
// They are escaped for the format of the file. In HTML they may stand in the text and in
// values of attributes, but in none that is a URL, a script or a style; in JSON, {{status}}
// may stand anywhere and the others within a string. The ID comes from the client if it has
// sent one. It is the value of Options.RequestID's field, or without such an option that
// of the answer's X-Request-Id, which a handler in front may have set.
//
// HTML has a Content-Security-Policy that allows no scripts, and with files only images,
// styles and fonts of the same origin. A policy that a handler in front has set holds
// instead for files. No answer may be stored by a cache.
//
// ErrorPages fails if a file can't be read, has a name that is none of these, isn't UTF-8,
// isn't JSON although it is named so, or has another word in double braces. It ignores
// folders, and files that begin with a dot.
func ErrorPages(fsys fs.FS) (func(w http.ResponseWriter, r *http.Request, err error), error) {
	p := &errorPages{files: make(map[string]errorPage)}
	if fsys == nil {
		return p.answer, nil
	}
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, fmt.Errorf("limpet: error pages: %w", err)
	}
	for _, entry := range entries {
		name := entry.Name()
		if entry.IsDir() || strings.HasPrefix(name, ".") {
			continue // Kubernetes mounts a ConfigMap with both
		}
		if p.files[name], err = readErrorPage(fsys, name); err != nil {
			return nil, fmt.Errorf("limpet: error page %s: %w", name, err)
		}
	}
	if len(p.files) == 0 {
		return nil, errors.New("limpet: error pages: there is no file such as 502.html or 5xx.json; without files, set no ErrorHandler or use ErrorPages(nil)")
	}
	return p.answer, nil
}

// An errorFormat is one of the formats that an error page can have.
type errorFormat struct {
	name   string // the ending of its files
	media  string
	escape func(string) string
	plain  errorPage // the page that is built in
	withID errorPage // the same for a request that has an ID
	policy string    // Content-Security-Policy of the page that is built in, if it has one
}

//go:embed error_page.html
var builtinHTML string

// errorFormats are all formats. The first one is for clients that accept none of them.
var errorFormats = [...]errorFormat{
	{
		name: "txt", media: "text/plain", escape: printable,
		plain:  mustErrorPage("{{text}}\n"),
		withID: mustErrorPage("{{text}}\nRequest ID: {{id}}\n"),
	},
	{
		name: "json", media: "application/json", escape: escapeJSON,
		plain:  mustErrorPage(`{"error":"{{text}}","status":{{status}}}` + "\n"),
		withID: mustErrorPage(`{"error":"{{text}}","status":{{status}},"request_id":"{{id}}"}` + "\n"),
	},
	{
		name: "html", media: "text/html", escape: escapeHTML,
		plain:  mustErrorPage(builtinHTML),
		withID: mustErrorPage(builtinHTML),
		policy: "default-src 'none'; style-src '" + styleHash(builtinHTML) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	},
}

// filesPolicy is the Content-Security-Policy of HTML from files.
const filesPolicy = "default-src 'none'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; font-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// styleHash returns the source of a Content-Security-Policy that allows the style element
// of a page and nothing else.
func styleHash(page string) string {
	_, style, _ := strings.Cut(page, "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	sum := sha256.Sum256([]byte(style))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// errorPages are the pages of one ErrorHandler.
type errorPages struct {
	files map[string]errorPage // by name
}

// answer writes the page for err.
func (p *errorPages) answer(w http.ResponseWriter, r *http.Request, err error) {
	status := StatusCode(err)
	format := &errorFormats[0]
	media := httpfield.Prefer(r.Header["Accept"], errorFormats[0].media, errorFormats[1].media, errorFormats[2].media)
	for i := range errorFormats {
		if errorFormats[i].media == media {
			format = &errorFormats[i]
		}
	}
	id := requestID(w, r)
	page, policy := format.plain, format.policy
	if id != "" {
		page = format.withID
	}
	h := w.Header()
	if file, ok := p.file(status, format); ok {
		page = file
		if policy != "" {
			policy = cmp.Or(h.Get("Content-Security-Policy"), filesPolicy)
		}
	}
	h.Del("Content-Length") // a handler in front has set it for another answer
	h.Set("Content-Type", format.media+"; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Add("Vary", "Accept")
	if policy != "" {
		h.Set("Content-Security-Policy", policy)
	}
	if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, page.fill(format.escape, status, id)) // net/http leaves it out for a HEAD
}

// file returns the file for a status in this format.
func (p *errorPages) file(status int, f *errorFormat) (errorPage, bool) {
	code := strconv.Itoa(status)
	page, ok := p.files[code+"."+f.name]
	if !ok {
		page, ok = p.files[code[:1]+"xx."+f.name]
	}
	return page, ok
}

// requestID returns the ID of a request that failed, "" if it has none.
func requestID(w http.ResponseWriter, r *http.Request) string {
	if id, ok := r.Context().Value(requestIDKey{}).(string); ok {
		return id
	}
	return w.Header().Get("X-Request-Id")
}

// requestIDKey is the key of a request's ID in its context.
type requestIDKey struct{}
