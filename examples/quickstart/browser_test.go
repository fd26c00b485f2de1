package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/limpet-go/limpet/internal/need"
)

// TestInTheBrowser does on the real page what a newcomer does in the first minute.
func TestInTheBrowser(t *testing.T) {
	t.Parallel()
	chromium := need.Chromium(t)
	url := start(t, 0)

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ctx, cancel = chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.NoSandbox, // which a browser that runs as root in a container has to do without
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
	)...)
	defer cancel()
	ctx, cancel = chromedp.NewContext(ctx)
	defer cancel()

	do := func(what string, steps ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, steps...); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	// read waits until the JavaScript expression is neither false nor empty.
	read := func(what, expression string) string {
		t.Helper()
		got, err := chromedp.Run(ctx, chromedp.Poll[string](expression, chromedp.WithPollingTimeout(20*time.Second)))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return got
	}
	const card = `document.querySelector('.backend.mine')?.id`

	do("open", chromedp.Navigate(url))
	home := read("its backend", card)
	if title := read("title", `document.querySelector('h1').textContent`); title != "You are on "+home {
		t.Errorf("the page says %q, and its card is %s's", title, home)
	}

	do("chat", chromedp.SendKeys("#text", "Hello from a browser\n"))
	said := read("the line", `document.querySelector('#lines li:last-child')?.textContent`)
	if !strings.Contains(said, home) || !strings.Contains(said, "Hello from a browser") {
		t.Errorf("the chat shows %q", said)
	}

	do("kill", chromedp.Click("#"+home+" .kill"))
	next := read("its next backend", fmt.Sprintf(`%s !== %q && %[1]s`, card, home))
	note := read("the note", `document.querySelector('#home-note').textContent`)
	if !strings.HasPrefix(note, fmt.Sprintf("Moved from %s to %s in ", home, next)) {
		t.Errorf("the page says %q", note)
	}
	read("the story", `document.querySelector('#events').textContent.includes('1012') && 'yes'`)

	do("revive", chromedp.Click("#"+home+" .kill"))
	read("the revived one", fmt.Sprintf(`document.querySelector('#%s').dataset.state === 'up' && 'yes'`, home))
	if now := read("its backend", card); now != next {
		t.Errorf("is on %s, want %s still", now, next)
	}
}
