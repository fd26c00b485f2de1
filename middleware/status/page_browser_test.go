package status

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/limpet-go/limpet/internal/browser"
)

var shots = flag.String("shots", "", "folder to write screenshots of the page to")

// TestScreenshots makes pictures of the page for people to look at.
func TestScreenshots(t *testing.T) {
	if *shots == "" {
		t.Skip("needs -shots")
	}
	b := browser.Start(t)
	for _, tt := range []struct {
		name          string
		backends      int
		trouble       bool
		width, height int
		scheme        string
		run           string
	}{
		{name: "status", backends: 5, trouble: true, width: 1280, height: 1120, scheme: "light"},
		{name: "dark", backends: 5, trouble: true, width: 1280, height: 1400, scheme: "dark"},
		{name: "phone", backends: 5, trouble: true, width: 390, height: 2600, scheme: "light"},
		{name: "one", backends: 1, width: 1280, height: 900, scheme: "light"},
		{name: "many", backends: 200, trouble: true, width: 1280, height: 1700, scheme: "dark"},
		{name: "tablet", backends: 3, width: 800, height: 1400, scheme: "light"},
		{name: "sheet", backends: 5, trouble: true, width: 1280, height: 900, scheme: "light", run: "document.querySelector('[data-backend=delta] .name').click()"},
		{name: "ask", backends: 5, trouble: true, width: 1280, height: 900, scheme: "dark", run: "document.querySelector('[data-backend=amber] .c-act button').click()"},
	} {
		f := newFixture(t, tt.backends)
		if tt.trouble {
			f.trouble()
		}
		p := b.Open(t, f.url)
		p.Prefer(t, "prefers-color-scheme", tt.scheme)
		p.Resize(t, tt.width, tt.height)
		p.Read(t, "rows", `document.querySelectorAll('#rows tr').length && document.querySelector('#live').dataset.live === 'live'`)
		p.Run(t, "wait", `setTimeout(() => { window.later = true }, 4000)`)
		p.Read(t, "some states", `window.later`)
		if tt.run != "" {
			p.Run(t, "run", tt.run)
		}
		if err := os.WriteFile(filepath.Join(*shots, tt.name+".png"), p.Screenshot(t, false), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, c := range p.Complaints() {
			t.Errorf("%s: %s", tt.name, c)
		}
	}
}
