// Package browser opens pages in a headless Chromium for tests.
package browser

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/need"
	"github.com/limpet-go/limpet/internal/process"
)

// Browser is a running Chromium.
type Browser struct{ devtools *devtools }

// Start starts a browser that ends with the test.
func Start(t testing.TB) *Browser {
	t.Helper()
	chromium := process.Start(t, exec.Command(need.Chromium(t),
		"--headless", "--remote-debugging-port=0", "--user-data-dir="+t.TempDir(), "--no-first-run",
		"--no-sandbox", // which a browser that runs as root in a container has to do without
		"--disable-dev-shm-usage", "--disable-gpu",
		// Pages go on as if each were in front.
		"--disable-background-timer-throttling", "--disable-backgrounding-occluded-windows", "--disable-renderer-backgrounding",
		// Nothing is fetched but what a test opens.
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic",
		"about:blank"))
	line := chromium.AwaitLine(t, "^DevTools listening on ws")
	devtools, err := dial(t.Context(), line[strings.Index(line, "ws"):])
	if err != nil {
		t.Fatalf("connect to the browser: %v", err)
	}
	t.Cleanup(func() {
		// A browser that is killed leaves processes behind that still write into
		// its folder while the test removes that.
		if err := devtools.call("", "Browser.close", nil, nil); err != nil {
			t.Errorf("close the browser: %v", err)
		}
		chromium.End(t)
		devtools.close()
	})
	return &Browser{devtools}
}

// Page is a tab with cookies of its own: another visitor.
type Page struct {
	devtools *devtools
	session  string
}

// Open opens a page and waits until it is loaded.
func (b *Browser) Open(t testing.TB, url string) *Page {
	t.Helper()
	var visitor struct{ BrowserContextID string }
	var tab struct{ TargetID string }
	var session struct{ SessionID string }
	var opened struct{ ErrorText string }
	err := b.devtools.call("", "Target.createBrowserContext", nil, &visitor)
	if err == nil {
		err = b.devtools.call("", "Target.createTarget",
			params{"url": "about:blank", "browserContextId": visitor.BrowserContextID}, &tab)
	}
	if err == nil {
		err = b.devtools.call("", "Target.attachToTarget", params{"targetId": tab.TargetID, "flatten": true}, &session)
	}
	p := &Page{b.devtools, session.SessionID}
	for _, domain := range []string{"Runtime", "Log"} { // for Complaints
		if err == nil {
			err = p.call(domain+".enable", nil, nil)
		}
	}
	if err == nil {
		err = p.call("Page.navigate", params{"url": url}, &opened)
	}
	if err == nil && opened.ErrorText != "" {
		err = errors.New(opened.ErrorText)
	}
	if err != nil {
		t.Fatalf("open %s: %v", url, err)
	}
	p.Read(t, "the page", `location.href !== 'about:blank' && document.readyState === 'complete'`)
	return p
}

func (p *Page) call(method string, in params, out any) error {
	return p.devtools.call(p.session, method, in, out)
}

// Resize makes the page's window width by height pixels.
func (p *Page) Resize(t testing.TB, width, height int) {
	t.Helper()
	if err := p.call("Emulation.setDeviceMetricsOverride",
		params{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil); err != nil {
		t.Fatalf("resize to %d by %d: %v", width, height, err)
	}
}

// Run runs JavaScript statements; what says what they are for.
func (p *Page) Run(t testing.TB, what, statements string) {
	t.Helper()
	if _, err := p.evaluate("{" + statements + "}; ''"); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// Read waits until a JavaScript expression is truthy and returns it as a string;
// what says what it stands for. As long as the expression throws it isn't true yet.
func (p *Page) Read(t testing.TB, what, expression string) string {
	t.Helper()
	late := time.After(process.Patience)
	for {
		got, err := p.evaluate("String((" + expression + ") || '')")
		if err == nil && got != "" {
			return got
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-late:
			t.Fatalf("waited in vain for %s (%v)", what, err)
		}
	}
}

// evaluate returns the value of an expression that is a string.
func (p *Page) evaluate(expression string) (string, error) {
	var got struct {
		Result           struct{ Value string }
		ExceptionDetails *struct {
			Exception struct{ Description string }
		}
	}
	if err := p.call("Runtime.evaluate", params{"expression": expression}, &got); err != nil {
		return "", err
	}
	if e := got.ExceptionDetails; e != nil {
		return "", errors.New(e.Exception.Description)
	}
	return got.Result.Value, nil
}

// Click waits for the element that a CSS selector means and clicks it with the mouse.
func (p *Page) Click(t testing.TB, selector string) {
	t.Helper()
	var at struct{ X, Y float64 }
	centre := p.Read(t, selector, fmt.Sprintf(`(() => {
		const element = document.querySelector(%q);
		element.scrollIntoView({block: 'center', behavior: 'instant'});
		const {x, y, width, height} = element.getBoundingClientRect();
		return width && JSON.stringify({x: x + width / 2, y: y + height / 2});
	})()`, selector))
	err := json.Unmarshal([]byte(centre), &at)
	for _, event := range []string{"mousePressed", "mouseReleased"} {
		if err == nil {
			err = p.call("Input.dispatchMouseEvent",
				params{"type": event, "x": at.X, "y": at.Y, "button": "left", "clickCount": 1}, nil)
		}
	}
	if err != nil {
		t.Fatalf("click %s: %v", selector, err)
	}
}

// Type waits for the element that a CSS selector means, gives it the focus and
// types text, in which \n is the Enter key.
func (p *Page) Type(t testing.TB, selector, text string) {
	t.Helper()
	p.Read(t, selector, fmt.Sprintf(`(() => {
		const element = document.querySelector(%q);
		element.focus();
		return document.activeElement === element;
	})()`, selector))
	for _, r := range text {
		key := params{"key": string(r), "text": string(r)}
		if r == '\n' {
			key = params{"key": "Enter", "text": "\r"}
		}
		for _, event := range []string{"keyDown", "keyUp"} {
			key["type"] = event
			if err := p.call("Input.dispatchKeyEvent", key, nil); err != nil {
				t.Fatalf("type %q into %s: %v", text, selector, err)
			}
			delete(key, "text") // the character comes with the key's way down
		}
	}
}

// Press presses a key that has a name, such as Tab, Enter, Escape or Space, as a person
// does who uses no mouse.
func (p *Page) Press(t testing.TB, name string) {
	t.Helper()
	code, known := map[string]int{"Tab": 9, "Enter": 13, "Escape": 27, "Space": 32, "ArrowDown": 40}[name]
	if !known {
		t.Fatalf("press %s: no such key", name)
	}
	key := params{"key": name, "code": name, "windowsVirtualKeyCode": code}
	switch name {
	case "Enter":
		key["text"] = "\r"
	case "Space":
		key["key"], key["text"] = " ", " "
	}
	for _, event := range []string{"keyDown", "keyUp"} {
		key["type"] = event
		if err := p.call("Input.dispatchKeyEvent", key, nil); err != nil {
			t.Fatalf("press %s: %v", name, err)
		}
		delete(key, "text") // the character comes with the key's way down
	}
}
