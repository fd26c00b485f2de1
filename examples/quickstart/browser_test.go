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

// However much has happened, the cards keep their height, and what is in them
// scrolls with the newest in sight.
func TestLongStoryInTheBrowser(t *testing.T) {
	t.Parallel()
	v := newVisitor(t, start(t, 0))
	p := browser.Start(t).Open(t, v.url)
	windows := []struct{ width, height int }{{1280, 800}, {1280, 1600}, {400, 800}}
	const heights = `[...document.querySelectorAll('.chat, .story')].map((card) => card.offsetHeight).join()`
	var before []string
	p.Read(t, "its first event", `document.querySelector('#events li') && 'yes'`)
	for _, w := range windows {
		p.Resize(t, w.width, w.height)
		before = append(before, p.Read(t, "the cards' heights", heights))
	}

	s := v.connect()
	for n := range 30 {
		s.say(fmt.Sprint("line ", n))
		v.press("coral", []string{"drain", "undrain"}[n%2])
	}
	p.Read(t, "lines", `document.querySelectorAll('#lines li').length >= 30 && 'yes'`)
	p.Read(t, "events", `document.querySelectorAll('#events li').length > 20 && 'yes'`)
	for i, w := range windows {
		p.Resize(t, w.width, w.height)
		if after := p.Read(t, "the cards' heights", heights); after != before[i] {
			t.Errorf("%d by %d: the cards are %s px high, were %s", w.width, w.height, after, before[i])
		}
		for _, list := range []string{"lines", "events"} {
			if got := p.Read(t, list, fmt.Sprintf(`(() => {
				const list = document.querySelector('#%s'), box = list.parentElement;
				if (box.scrollHeight <= box.clientHeight) return 'not scrolling';
				const bottom = (element) => element.getBoundingClientRect().bottom;
				return bottom(list.lastElementChild) <= bottom(box) + 1 ? 'well' : 'out of sight';
			})()`, list)); got != "well" {
				t.Errorf("%d by %d: the newest of #%s is %s", w.width, w.height, list, got)
			}
		}
	}
}

// The page tells dead from drained, and says so when nobody is left. What an operator sees
// is one click away.
func TestNobodyIsUpInTheBrowser(t *testing.T) {
	t.Parallel()
	p := browser.Start(t).Open(t, start(t, 0))
	home := p.Read(t, "its backend", mine)
	if way := p.Read(t, "the way of its requests", `document.querySelector('#way-ends .mine').textContent + ': ' + document.querySelector('#way-why').textContent`); way != home+": the cookie says "+home {
		t.Errorf("the picture says %q", way)
	}
	p.Click(t, "#"+home+" .drain")
	state := func(id string) string { return fmt.Sprintf(`document.querySelector('#%s').dataset.state`, id) }
	p.Read(t, "a drained one", state(home)+` === 'drained'`)
	colour := func(id string) string {
		return p.Read(t, "its colour", fmt.Sprintf(`getComputedStyle(document.querySelector('#%s .state')).color`, id))
	}
	drained := colour(home)
	var killed string
	for _, id := range []string{"coral", "ocean", "moss"} {
		if id != home {
			p.Click(t, "#"+id+" .kill")
			p.Read(t, "a dead one", state(id)+` === 'down'`)
			killed = id
		}
	}
	if dead := colour(killed); dead == drained {
		t.Errorf("dead and drained are both %s", dead)
	}
	p.Read(t, "the headline", `document.querySelector('h1').textContent.trim() === 'No backend is up'`)
	p.Read(t, "what it means", `!document.querySelector('#nobody').hidden`)
	p.Read(t, "times of events", `[...document.querySelectorAll('#events time')].length >= 4 && [...document.querySelectorAll('#events time')].every((time) => /^\d\d:\d\d:\d\d$/.test(time.textContent))`)
	p.Click(t, "#"+killed+" .kill")
	if next := p.Read(t, "its next backend", mine); next != killed {
		t.Errorf("is on %s, and only %s is alive", next, killed)
	}
	p.Read(t, "all well", `document.querySelector('#nobody').hidden`)

	p.Click(t, ".operator")
	p.Read(t, "the status page", `location.pathname === '/limpet/' && document.querySelectorAll('#rows tr').length === 3`)
	p.Read(t, "its steering", `document.querySelector('#mode').textContent === 'steering'`)
}
