package status

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/browser"
)

// live is true once the page shows what the gateway says.
const live = `document.querySelector('#live').dataset.live === 'live' && document.querySelector('#rows tr')`

// open opens the page, which must not complain about anything until the test ends.
func (f *fixture) open(t *testing.T, b *browser.Browser) *browser.Page {
	t.Helper()
	p := b.Open(t, f.url)
	p.Resize(t, 1280, 2400) // rows outside of the window aren't filled
	t.Cleanup(func() {
		for _, complaint := range p.Complaints() {
			t.Errorf("the page complains: %s", complaint)
		}
		p.Run(t, "leave", `location.href = 'about:blank'`) // or it would go on beside the next
	})
	p.Read(t, "a live page", live)
	return p
}

// text is a JavaScript expression: the text of the element that a selector means.
func text(selector string) string {
	return fmt.Sprintf(`document.querySelector(%q).innerText`, selector)
}

// TestPageInTheBrowser shows made-up gateways to a real browser. It runs alone, because
// some of it is about time.
func TestPageInTheBrowser(t *testing.T) {
	b := browser.Start(t)
	for _, tt := range []struct {
		name string
		test func(*testing.T, *browser.Browser)
	}{
		{"states in words", statesInWords},
		{"text stays text", textStaysText},
		{"read-only", readOnly},
		{"stale", stale},
		{"by keyboard", byKeyboard},
		{"steering", steering},
		{"groups", groups},
		{"refused", refused},
		{"filter and sort", filterAndSort},
		{"fits a phone", fitsAPhone},
		{"contrast", contrast},
		{"many backends", manyBackends},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, b) })
	}
}

func statesInWords(t *testing.T, b *browser.Browser) {
	f := newFixture(t, 5)
	p := f.open(t, b)
	if got := p.Read(t, "the headline", text("#headline")); got != "All 5 backends are up." {
		t.Errorf("the headline is %q", got)
	}
	f.trouble()
	f.set(func() { f.backends[1].checkError = "503 Service Unavailable" })
	p.Read(t, "a dead backend", `document.querySelector('[data-backend=coral]').className === 'is-down'`)
	for selector, want := range map[string]string{
		"#headline":                       "3 of 5 backends are up: 1 down, 1 draining.",
		"[data-backend=coral] .c-state":   "down ",
		"[data-backend=coral] .why":       "connection refused",
		"[data-backend=birch] .why":       "The last check failed: 503",
		"[data-backend=delta] .drain":     "132 of 400 left, ",
		"[data-backend=ember] .differ":    "gw3 says draining",
		"#replicas .is-differ":            "ember is draining there, up here",
		"#findings":                       "Raise its idle limit",
		"#matters":                        "coral\ndown for ",
		"#parts":                          "Redis answers",
		"#parts li:first-child":           "waits for a drain of backend delta; 1,234 moved so far",
		"[data-backend=amber] .c-tunnels": "408",
	} {
		if got := p.Read(t, selector, text(selector)); !strings.Contains(strings.ReplaceAll(got, "\u00a0", " "), want) {
			t.Errorf("%s says %q, want %q", selector, got, want)
		}
	}
	p.Read(t, "five rows in the picture and Limpet's own", `document.querySelectorAll('#flow use').length === 6`)
	f.set(func() {
		for _, b := range f.backends {
			b.state, b.health = "down", "dead"
		}
	})
	p.Read(t, "the headline", text("#headline")+` === 'No backend is up: every request is answered 503.'`)
	f.set(func() { f.backends = f.backends[:2] })
	p.Read(t, "two rows", `document.querySelectorAll('#rows tr').length === 2`)
}

// What comes from the gateway is shown, never carried out.
func textStaysText(t *testing.T, b *browser.Browser) {
	const evil = `<img src=x onerror="window.broken = 1"><script>window.broken = 1</script>`
	f := newFixture(t, 3)
	f.hostile(evil)
	p := f.open(t, b)
	p.Run(t, "open its sheet", `document.querySelector('#rows .name').click()`)
	for _, selector := range []string{"#rows .why", "#matters", "#findings", "#events", "#parts", "#replicas", "#rows .name", "#sheet-title", "#sheet-why"} {
		p.Read(t, selector+" with the text", fmt.Sprintf(`document.querySelector(%q).textContent.includes(%q)`, selector, evil))
	}
	p.Run(t, "ask", `document.querySelector('#sheet-drain').click()`)
	p.Read(t, "the question", fmt.Sprintf(`document.querySelector('#ask-title').textContent.includes(%q)`, evil))
	if got := p.Read(t, "what it became", `String(window.broken) + document.querySelectorAll('img, main script').length`); got != "undefined1" { // the logo
		t.Errorf("markup was made of it: %s", got)
	}
}

func readOnly(t *testing.T, b *browser.Browser) {
	f := newFixture(t, 3)
	f.steering = false
	p := f.open(t, b)
	p.Run(t, "open a sheet", `document.querySelector('#rows .name').click()`)
	p.Read(t, "the sheet", `document.querySelector('#sheet').open`)
	if got := p.Read(t, "what can be pressed", `[...document.querySelectorAll('.c-act button, #sheet-acts button, #client button, #sheet-tunnels-box button')].filter((b) => b.checkVisibility()).length + ' buttons'`); got != "0 buttons" {
		t.Errorf("a page that may only look has %s", got)
	}
	for _, selector := range []string{"#how", "#sheet-how"} {
		if got := p.Read(t, selector, text(selector)); !strings.Contains(got, "Authorize") {
			t.Errorf("%s says %q, not how to get it", selector, got)
		}
	}
}

// When the stream breaks the page says so at once, and since when it knows nothing; then
// it connects again.
func stale(t *testing.T, b *browser.Browser) {
	f := newFixture(t, 3)
	p := b.Open(t, f.url) // it complains about the refused stream, as it should
	p.Read(t, "a live page", live)
	broke := time.Now()
	f.set(func() { f.silent = true })
	p.Read(t, "what is said", `!document.querySelector('#stale').hidden && document.querySelector('#stale-what').textContent.includes('lost')`)
	if took := time.Since(broke); took > 2*time.Second {
		t.Errorf("said after %v", took)
	}
	p.Read(t, "the age", `/What you see is from \d\d:\d\d:\d\d, \d+ s old/.test(document.querySelector('#stale-age').textContent)`)
	f.set(func() {
		f.silent = false
		f.happened(0, "down", f.backends[0].id, "was lost meanwhile", "")
	})
	p.Read(t, "the page live again", `document.querySelector('#stale').hidden && document.querySelector('#live').dataset.live === 'live'`)
	p.Read(t, "what was missed", `document.querySelector('#events').textContent.includes('was lost meanwhile')`)
}

// The whole way from the top of the page to a drain, without a mouse.
func byKeyboard(t *testing.T, b *browser.Browser) {
	f := newFixture(t, 3)
	p := f.open(t, b)
	p.Press(t, "Tab")
	if got := p.Read(t, "the first stop", `document.activeElement.className`); got != "skip" {
		t.Fatalf("the first Tab leads to %q", got)
	}
	p.Press(t, "Enter")
	p.Read(t, "the backends", `document.activeElement.id === 'backends'`)
	for n := 0; ; n++ {
		p.Press(t, "Tab")
		at := p.Read(t, "the focus", `document.activeElement.getAttribute('aria-label') || document.activeElement.tagName`)
		if at == "Drain amber" {
			break
		}
		if n == 40 {
			t.Fatalf("40 times Tab, and the focus is on %q", at)
		}
	}
	if got := p.Read(t, "the ring", `getComputedStyle(document.activeElement).outlineStyle`); got != "solid" {
		t.Errorf("the focus is drawn %q", got)
	}
	p.Press(t, "Enter")
	question := p.Read(t, "the question", `document.querySelector('#ask').open && document.querySelector('#ask-text').textContent`)
	if !strings.Contains(question, "408 tunnels will be closed over 1 minute") || !strings.Contains(question, "reconnect elsewhere") {
		t.Errorf("it asks %q", question)
	}
	p.Press(t, "Escape")
	p.Read(t, "the dialog closed", `!document.querySelector('#ask').open`)
	if asked := f.wanted(); len(asked) > 0 {
		t.Fatalf("Escape did %q", asked)
	}
	if got := p.Read(t, "the focus", `document.activeElement.getAttribute('aria-label')`); got != "Drain amber" {
		t.Errorf("the focus came back to %q", got)
	}
	p.Press(t, "Enter")
	p.Read(t, "the question", `document.querySelector('#ask').open`)
	p.Press(t, "ArrowDown") // 5 minutes
	p.Read(t, "the changed question", `document.querySelector('#ask-text').textContent.includes('over 5 minutes')`)
	p.Press(t, "Tab")
	p.Press(t, "Tab")
	p.Press(t, "Enter")
	p.Read(t, "the drain", `document.querySelector('[data-backend=amber]').className === 'is-draining'`)
	if asked := f.wanted(); len(asked) != 1 || asked[0] != `POST backends/amber/drain {"within":"5m"}` {
		t.Errorf("it asked for %q", asked)
	}
	if got := p.Read(t, "the button", text("[data-backend=amber] .c-act button")); got != "Undrain" {
		t.Errorf("the button says %q", got)
	}
}

func steering(t *testing.T, b *browser.Browser) {
	f := newFixture(t, 3)
	p := f.open(t, b)
	yes := func(want string) {
		t.Helper()
		p.Read(t, "the question", fmt.Sprintf(`document.querySelector('#ask').open && (document.querySelector('#ask-text').textContent + document.querySelector('#ask-warn').textContent).includes(%q)`, want))
		p.Click(t, "#ask-yes")
		p.Read(t, "the answer", `!document.querySelector('#ask').open`)
	}
	p.Click(t, "[data-backend=birch] .name")
	p.Click(t, "#sheet-off")
	yes("217 tunnels and 4 requests will be cut at once")
	p.Click(t, "#sheet-undrain")
	p.Read(t, "it serves", `document.querySelector('[data-backend=birch]').className === 'is-up'`)
	p.Click(t, "#sheet-weight")
	p.Run(t, "weigh", `const input = document.querySelector('#ask-input'); input.value = 2; input.oninput()`)
	yes("50% of the new clients")
	p.Read(t, "the weight", text("[data-backend=birch] .c-weight")+`.includes('2')`)
	p.Click(t, "#sheet-tunnels-show")
	p.Click(t, "#sheet-tunnels li button")
	yes("203.0.113.9")
	p.Read(t, "one tunnel less", `document.querySelectorAll('#sheet-tunnels li').length === 1`)
	p.Click(t, "#sheet-close")

	p.Type(t, "#find-value", "limpet=abc\n")
	p.Read(t, "the pin", `document.querySelector('#found').textContent.includes('Pinned to amber')`)
	p.Read(t, "its tunnels", `document.querySelectorAll('#found li').length === 2`)
	for i, want := range []string{"it belongs to birch", "placed anew", "close code 1008"} {
		p.Click(t, fmt.Sprintf("#found .acts button:nth-child(%d)", i+1))
		yes(want)
	}

	// The last that is up is not drained without a warning.
	f.set(func() {
		for _, b := range f.backends[1:] {
			b.state, b.health = "down", "dead"
		}
	})
	p.Read(t, "two dead", `document.querySelectorAll('#rows .is-down').length === 2`)
	p.Click(t, "[data-backend=amber] .c-act button")
	yes("No other backend is up")

	want := []string{
		`POST backends/birch/off {}`, `POST backends/birch/undrain {}`, `POST backends/birch/weight {"weight":2}`,
		`GET tunnels`, `POST tunnels/17/close {"code":1012,"reason":"closed by the operator"}`,
		`POST pins/find {"cookie":"limpet=abc"}`, `GET tunnels`, `POST pins/move {"key":"kq3vZ0cJ2m1x","backend":"birch"}`, `POST pins/forget {"key":"kq3vZ0cJ2m1x"}`,
		`POST clients/close {"key":"kq3vZ0cJ2m1x","code":1008,"reason":"closed by the operator"}`,
		`POST backends/amber/drain {"within":"60s"}`,
	}
	if got := f.wanted(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("asked for\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// The shares of groups are shown, and set with what follows from them in view.
func groups(t *testing.T, b *browser.Browser) {
	f := newFixture(t, 4)
	p := f.open(t, b)
	p.Read(t, "no groups", `document.querySelector('#groups-box').hidden`)
	f.set(func() { f.backends[3].group = "canary" })
	says := func(want string) {
		t.Helper()
		p.Read(t, want, text("#groups")+fmt.Sprintf(`.replace(/\s+/g, ' ').includes(%q)`, want))
	}
	says("canary Share… 1 of 1 backend up; no shares are set")
	says("no group Share… 3 of 3 backends up; no shares are set")
	ask := func(share, want string) {
		t.Helper()
		p.Click(t, `#groups [aria-label="Share of canary"]`)
		p.Read(t, "the question", `document.querySelector('#ask').open`)
		p.Run(t, "share", fmt.Sprintf(`const input = document.querySelector('#ask-input'); input.value = %s; input.oninput()`, share))
		p.Read(t, want, fmt.Sprintf(`document.querySelector('#ask-text').textContent.includes(%q)`, want))
		p.Click(t, "#ask-yes")
		p.Read(t, "the answer", `!document.querySelector('#ask').open`)
	}
	ask("0", "no group gets 100%") // the others have what their weights give them
	says("canary Share… 1 of 1 backend up; 0% of the new clients (share 0)")
	ask("25", "no group gets 75%, canary gets 25%")
	says("25% of the new clients (share 25)")
	f.set(func() { f.backends[3].state = "down" })
	says("0 of 1 backend up; its share of 25 goes to the others")
	p.Click(t, "#groups-none")
	p.Click(t, "#ask-yes")
	says("no shares are set")

	// A group that is down, or whose weight is small, keeps a share when another group gets one.
	f.set(func() {
		f.backends[0].group, f.backends[0].state = "blue", "draining"
		f.backends[1].weight = 800
		f.backends[2].group, f.backends[2].weight = "tiny", 1
	})
	says("blue Share… 0 of 1 backend up; no shares are set")
	ask("50", "canary gets none, tiny gets 1.0%")
	f.set(func() { f.backends[0].state = "up" })
	says("blue Share… 1 of 1 backend up; 1.0% of the new clients (share 1)")
	p.Click(t, `#groups [aria-label="Share of blue"]`)
	p.Read(t, "the question", `document.querySelector('#ask').open`)
	p.Run(t, "share", `const input = document.querySelector('#ask-input'); input.value = 0; input.oninput()`)
	p.Read(t, "who gets none", `document.querySelector('#ask-text').textContent.includes('blue gets none')`)

	want := []string{`POST shares {"shares":{"":75,"canary":0}}`, `POST shares {"shares":{"":75,"canary":25}}`, `POST shares {"shares":{}}`, `POST shares {"shares":{"":100,"blue":1,"canary":50,"tiny":1}}`}
	if got := f.wanted(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("asked for\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// What fails says so, and the question stays.
func refused(t *testing.T, b *browser.Browser) {
	f := newFixture(t, 3)
	f.refuse = true
	p := b.Open(t, f.url) // it complains about the refusal, as it should
	p.Resize(t, 1280, 2400)
	p.Click(t, "[data-backend=amber] .c-act button")
	p.Click(t, "#ask-yes")
	p.Read(t, "the error", `!document.querySelector('#ask-error').hidden && document.querySelector('#ask-error').textContent.includes('you may look, but not steer')`)
	p.Read(t, "the question", `document.querySelector('#ask').open && !document.querySelector('#ask-yes').disabled`)
}

func filterAndSort(t *testing.T, b *browser.Browser) {
	f := newFixture(t, 5)
	f.trouble()
	p := f.open(t, b)
	order := func(want string) {
		t.Helper()
		p.Read(t, "the rows "+want, fmt.Sprintf(`[...document.querySelectorAll('#rows tr')].map((tr) => tr.dataset.backend).join(' ') === %q`, want))
	}
	order("amber birch coral delta ember")
	p.Click(t, "th.c-tunnels button")
	order("amber birch ember delta coral")
	p.Click(t, "th.c-state button")
	order("coral delta amber birch ember")
	if got := p.Read(t, "what a screen reader says", `document.querySelector('th.c-state').getAttribute('aria-sort')`); got != "descending" {
		t.Errorf("aria-sort is %q", got)
	}
	p.Click(t, "#chips button:nth-child(2)")
	order("coral delta ember")
	p.Type(t, "#filter", "refused")
	order("coral")
	p.Type(t, "#filter", "x")
	p.Read(t, "the word for none", `!document.querySelector('#no-rows').hidden`)
}

func fitsAPhone(t *testing.T, b *browser.Browser) {
	for _, n := range []int{1, 5, 200} {
		f := newFixture(t, n)
		if n > 1 {
			f.trouble()
		}
		f.set(func() { f.backends[0].id = "a-backend-with-a-very-long-name-and-no-space-in-it.internal.example.com" })
		p := f.open(t, b)
		for _, width := range []int{390, 320, 768, 1280} {
			p.Resize(t, width, 800)
			p.Run(t, "the next frames", `window.settled = false; requestAnimationFrame(() => requestAnimationFrame(() => { window.settled = true }))`)
			p.Read(t, "the next frames", `window.settled`)
			if got := p.Read(t, "the width", `document.documentElement.scrollWidth - document.documentElement.clientWidth + ' px'`); got != "0 px" {
				t.Errorf("%d backends: %s too wide for a window of %d", n, got, width)
			}
		}
	}
}

// Every text has the contrast that WCAG 2.2 asks for at level AA, 4.5 to 1, by day and by night.
func contrast(t *testing.T, b *browser.Browser) {
	f := newFixture(t, 5)
	f.trouble()
	p := f.open(t, b)
	for _, scheme := range []string{"light", "dark"} {
		p.Prefer(t, "prefers-color-scheme", scheme)
		got := p.Read(t, "weak texts", `(() => {
			const channels = (color) => color.match(/[\d.]+/g).map(Number);
			const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4))
				.reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
			const behind = (node) => {
				for (; node; node = node.parentElement) {
					const back = channels(getComputedStyle(node).backgroundColor);
					if (back[3] !== 0) return back;
				}
			};
			const weak = new Set();
			const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
			while (walker.nextNode()) {
				const node = walker.currentNode.parentElement;
				if (!walker.currentNode.data.trim() || !node.checkVisibility()) continue;
				const style = getComputedStyle(node);
				const ink = channels(node.closest('svg') ? style.fill : style.color);
				const [a, b] = [light(ink), light(behind(node))].sort((x, y) => y - x);
				const ratio = (a + .05) / (b + .05);
				if (ratio < 4.5) weak.add(walker.currentNode.data + ' ' + ratio.toFixed(2));
			}
			return [...weak].join(', ') || 'none';
		})()`)
		if got != "none" {
			t.Errorf("%s: too weak: %s", scheme, got)
		}
	}
}

// With 200 backends a second's state is written into the elements that are there, for what
// can be seen only, and takes a small part of a frame.
func manyBackends(t *testing.T, b *browser.Browser) {
	f := newFixture(t, 200)
	f.trouble()
	p := f.open(t, b)
	p.Resize(t, 1280, 1000)
	p.Run(t, "go to the table", `document.querySelector('#rows tr:nth-child(20)').scrollIntoView()`)
	p.Read(t, "the pins' rates, which need two states", `document.querySelectorAll('#flow .odd').length === 3`)
	p.Run(t, "watch", `
		window.made = []; window.rows = new Set(); window.frames = 0;
		new MutationObserver((records) => { for (const { type, target, addedNodes } of records) {
			for (const node of addedNodes) if (node.nodeType === 1) made.push((target.id || target.className) + ' ' + node.tagName);
			const row = (target.nodeType === 1 ? target : target.parentElement)?.closest('#rows tr');
			if (row) rows.add(row);
		} }).observe(document.body, {childList: true, subtree: true, attributes: true, characterData: true});
		const ask = requestAnimationFrame;
		window.requestAnimationFrame = (render) => ask((now) => { frames++; render(now); });
	`)
	all, script := p.Busy(t)
	for range 10 {
		<-f.sent // asking the page would keep it busy
	}
	allAfter, scriptAfter := p.Busy(t)
	p.Read(t, "some frames", `frames >= 9`)
	if got := p.Read(t, "new elements", `made.join(', ') || 'none'`); got != "none" {
		t.Errorf("ten states made new elements: %s", got)
	}
	if got := p.Read(t, "rows", `rows.size > 0 && rows.size < 40 && 'few'`); got != "few" {
		t.Errorf("%s rows were written", got)
	}
	t.Logf("a state takes %v of processor time, %v of it the script", (allAfter-all)/10, (scriptAfter-script)/10)
	if frame := (scriptAfter - script) / 10; frame > 16*time.Millisecond {
		t.Errorf("the script takes %v for a state, more than a frame has", frame)
	}
	p.Run(t, "scroll", `document.querySelector('#rows tr:last-child').scrollIntoView()`)
	p.Read(t, "the last row filled", `document.querySelector('#rows tr:last-child .c-tunnels').textContent !== ''`)
}

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
		states        int // that it waits for
		run           string
	}{
		{name: "status", backends: 5, trouble: true, width: 1280, height: 1730, scheme: "light", states: 25},
		{name: "dark", backends: 5, trouble: true, width: 1280, height: 1560, scheme: "dark", states: 25},
		{name: "phone", backends: 5, trouble: true, width: 390, height: 3300, scheme: "light", states: 4},
		{name: "one", backends: 1, width: 1280, height: 900, scheme: "light", states: 4},
		{name: "many", backends: 200, trouble: true, width: 1280, height: 1700, scheme: "dark", states: 4},
		{name: "tablet", backends: 3, width: 800, height: 1400, scheme: "light", states: 4},
		{name: "sheet", backends: 5, trouble: true, width: 1280, height: 900, scheme: "light", states: 4, run: "document.querySelector('[data-backend=delta] .name').click()"},
		{name: "ask", backends: 5, trouble: true, width: 1280, height: 900, scheme: "dark", states: 4, run: "document.querySelector('[data-backend=amber] .c-act button').click()"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, tt.backends)
			if tt.trouble {
				f.trouble()
			}
			p := b.Open(t, f.url)
			p.Prefer(t, "prefers-color-scheme", tt.scheme)
			p.Resize(t, tt.width, tt.height)
			p.Read(t, "rows", `document.querySelectorAll('#rows tr').length && document.querySelector('#live').dataset.live === 'live'`)
			for range tt.states {
				<-f.sent
			}
			if tt.run != "" {
				p.Run(t, "run", tt.run)
			}
			if err := os.WriteFile(filepath.Join(*shots, tt.name+".png"), p.Screenshot(t, false), 0o644); err != nil {
				t.Fatal(err)
			}
			for _, c := range p.Complaints() {
				t.Error(c)
			}
		})
	}
}
