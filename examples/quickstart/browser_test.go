package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/internal/browser"
)

// mine is the ID of the card that says where the visitor is.
const mine = `document.querySelector('.backend.mine')?.id`

// TestInTheBrowser does on the real page what a newcomer does in the first minute.
func TestInTheBrowser(t *testing.T) {
	t.Parallel()
	p := browser.Start(t).Open(t, start(t, 0))

	home := p.Read(t, "its backend", mine)
	if title := p.Read(t, "title", `document.querySelector('h1').textContent`); title != "You are on "+home {
		t.Errorf("the page says %q, and its card is %s's", title, home)
	}

	p.Type(t, "#text", "Hello from a browser\n")
	said := p.Read(t, "the line", `document.querySelector('#lines li:last-child')?.textContent`)
	if !strings.Contains(said, home) || !strings.Contains(said, "Hello from a browser") {
		t.Errorf("the chat shows %q", said)
	}

	p.Click(t, "#"+home+" .kill")
	next := p.Read(t, "its next backend", fmt.Sprintf(`%s !== %q && %[1]s`, mine, home))
	note := p.Read(t, "the note", `document.querySelector('#home-note').textContent`)
	if !strings.HasPrefix(note, fmt.Sprintf("Moved from %s to %s in ", home, next)) {
		t.Errorf("the page says %q", note)
	}
	p.Read(t, "the story", `document.querySelector('#events').textContent.includes('1012') && 'yes'`)

	p.Click(t, "#"+home+" .kill")
	p.Read(t, "the revived one", fmt.Sprintf(`document.querySelector('#%s').dataset.state === 'up' && 'yes'`, home))
	if now := p.Read(t, "its backend", mine); now != next {
		t.Errorf("is on %s, want %s still", now, next)
	}
}
