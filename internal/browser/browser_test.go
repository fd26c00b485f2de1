package browser_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/internal/browser"
)

const page = `<!doctype html>
<title>page</title>
<form onsubmit="said.textContent = text.value; return false"><input id="text"></form>
<p id="said"></p>
<div style="height: 3000px"></div>
<button onclick="this.textContent = event.isTrusted">press</button>
<script>document.cookie = 'visits=' + (Number(document.cookie.split('=')[1] ?? 0) + 1)</script>`

// What tests do with pages works as if a person did it.
func TestPage(t *testing.T) {
	t.Parallel()
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, page) }))
	t.Cleanup(site.Close)
	b := browser.Start(t)
	p := b.Open(t, site.URL)

	p.Type(t, "#text", "grüße, \"you\"\n")
	if got := p.Read(t, "what was said", `said.textContent`); got != `grüße, "you"` {
		t.Errorf("typed %q", got)
	}
	p.Click(t, "button") // which is below the window
	if got := p.Read(t, "the click", `document.querySelector('button').textContent.replace('press', '')`); got != "true" {
		t.Errorf("the click is trusted: %s", got)
	}
	p.Run(t, "a value for later", `setTimeout(() => { window.later = {n: 7} }, 50)`)
	if got := p.Read(t, "the value", `later.n`); got != "7" {
		t.Errorf("read %q", got)
	}
	p.Resize(t, 400, 700)
	if got := p.Read(t, "the size", `innerWidth + 'x' + innerHeight`); got != "400x700" {
		t.Errorf("the window is %s", got)
	}
	for _, visitor := range []*browser.Page{p, b.Open(t, site.URL)} {
		if got := visitor.Read(t, "the cookie", `document.cookie`); got != "visits=1" {
			t.Errorf("%q: visitors share cookies", got)
		}
	}
}

// What goes wrong on a page is told, and what goes right isn't.
func TestComplaints(t *testing.T) {
	t.Parallel()
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Security-Policy", "default-src 'self'; img-src data:")
		fmt.Fprint(w, `<!doctype html><link rel="icon" href="data:,"><title>page</title>`)
	}))
	t.Cleanup(site.Close)
	b := browser.Start(t)
	for _, tt := range []struct{ name, statements, want string }{
		{"nothing", `console.log('fine')`, ""},
		{"warning", `console.warn('beware', 7)`, "beware"},
		{"exception", `setTimeout(() => { throw new Error('thrown') })`, "thrown"},
		{"policy", `document.body.setAttribute('style', 'color: red')`, "Content Security Policy"},
		{"missing", `fetch('missing')`, "404"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := b.Open(t, site.URL)
			p.Run(t, tt.name, tt.statements+`; setTimeout(() => { window.after = true }, 300)`)
			p.Read(t, "the time after", `window.after`)
			got := p.Complaints()
			if tt.want == "" && len(got) > 0 || tt.want != "" && !strings.Contains(strings.Join(got, "\n"), tt.want) {
				t.Errorf("complaints %q, want %q", got, tt.want)
			}
		})
	}
}
