package status_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/internal/browser"
	"github.com/limpet-go/limpet/middleware/status"
)

// stay keeps n clients connected until the test ends: each comes back with its cookie
// whenever its tunnel ends.
func stay(t *testing.T, g *rig, n int) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		all.Wait()
	})
	for range n {
		c := newClient(t)
		all.Go(func() {
			for ctx.Err() == nil {
				conn, _, err := websocket.Dial(ctx, g.srv.URL+"/", &websocket.DialOptions{HTTPClient: &http.Client{Jar: c.Jar, Transport: c.Transport}})
				if err != nil {
					continue
				}
				for err == nil {
					_, _, err = conn.Read(ctx)
				}
				conn.CloseNow()
			}
		})
	}
}

// The page of a real gateway, with real clients: a kill is seen within two seconds, and a
// drain by its button moves the clients. It runs alone, because some of it is about time.
func TestPageOfAGateway(t *testing.T) {
	const clients = 12
	g := newRig(t, "a b c", &status.Options{Authorize: everybody, Who: named("ada")}, nil)
	g.check()
	eventually(t, "all up", func() bool {
		for b := range g.pool.All() {
			if b.State().String() != "up" {
				return false
			}
		}
		return true
	})
	p := browser.Start(t).Open(t, g.srv.URL+g.mount) // and is sent to the path with a slash
	p.Resize(t, 1280, 2000)
	stay(t, g, clients)

	row := func(id, of string) string {
		return fmt.Sprintf(`document.querySelector('[data-backend=%s] %s').innerText`, id, of)
	}
	each := func(of string) string {
		return fmt.Sprintf(`[...document.querySelectorAll('#rows tr')].map((tr) => Number(tr.querySelector(%q).innerText)).reduce((a, b) => a + b, 0)`, of)
	}
	p.Read(t, "all clients", fmt.Sprintf(`%s === %d`, each(".c-tunnels"), clients))
	p.Read(t, "each with some", `[...document.querySelectorAll('.c-tunnels')].slice(1).every((cell) => Number(cell.innerText) > 0)`)
	for _, c := range []string{"#how", "#mode"} {
		p.Read(t, c, fmt.Sprintf(`document.querySelector(%q).textContent`, c))
	}

	killed := time.Now()
	g.nodes["b"].Kill()
	p.Read(t, "b down", `document.querySelector('[data-backend=b]').className === 'is-down'`)
	if took := time.Since(killed); took > 2*time.Second {
		t.Errorf("the page showed a kill after %v", took)
	}
	p.Read(t, "the headline", `document.querySelector('#headline').textContent === '2 of 3 backends are up: 1 down.'`)
	p.Read(t, "the reason", row("b", ".why")+`.includes('refused')`)
	p.Read(t, "the event", `[...document.querySelectorAll('#events .is-down')].some((li) => li.textContent.includes('b'))`)
	p.Read(t, "all clients elsewhere", fmt.Sprintf(`%s === '0' && %s === %d`, row("b", ".c-tunnels"), each(".c-tunnels"), clients))

	p.Click(t, "[data-backend=a] .c-act button")
	p.Read(t, "the question", `document.querySelector('#ask').open`)
	p.Run(t, "within 10 s", `const list = document.querySelector('#ask-select'); list.value = '10s'; list.onchange()`)
	p.Read(t, "what will happen", `/Its \d+ tunnels? will be closed over 10 seconds/.test(document.querySelector('#ask-text').textContent)`)
	p.Click(t, "#ask-yes")
	p.Read(t, "the drain", `document.querySelector('[data-backend=a]').className === 'is-draining'`)
	p.Read(t, "its progress", `/\d+ of \d+ left, \d+ s/.test(`+row("a", ".drain")+`)`)
	p.Read(t, "who did it", `document.querySelector('#events').innerText.includes('by ada')`)
	p.Read(t, "a drained", `document.querySelector('[data-backend=a]').className === 'is-drained'`)
	p.Read(t, "all clients on c", fmt.Sprintf(`%s === '%d'`, row("c", ".c-tunnels"), clients))
	p.Read(t, "that it may be stopped", row("a", ".drain")+`.includes('may be stopped')`)

	p.Click(t, "[data-backend=a] .c-act button")
	p.Read(t, "a up", `document.querySelector('[data-backend=a]').className === 'is-up'`)

	// The other calls of the page, as far as the fixture has made them up.
	p.Click(t, "[data-backend=c] .name")
	p.Click(t, "#sheet-tunnels-show")
	p.Read(t, "the tunnels", fmt.Sprintf(`document.querySelectorAll('#sheet-tunnels li').length === %d`, clients))
	p.Click(t, "#sheet-tunnels li:first-child button")
	p.Read(t, "the question", `document.querySelector('#ask').open`)
	p.Click(t, "#ask-yes")
	p.Read(t, "one less", fmt.Sprintf(`document.querySelectorAll('#sheet-tunnels li').length === %d`, clients-1))
	p.Click(t, "#sheet-weight")
	p.Run(t, "weigh", `const input = document.querySelector('#ask-input'); input.value = 3; input.oninput()`)
	p.Click(t, "#ask-yes")
	p.Read(t, "the weight", row("c", ".c-weight")+`.includes('of 1')`)
	p.Click(t, "#sheet-close")
	key := g.keyOfATunnel()
	p.Run(t, "by key", `const by = document.querySelector('#find-by'); by.value = 'key'; by.onchange()`)
	p.Type(t, "#find-value", key+"\n")
	p.Read(t, "the client", `document.querySelector('#found').textContent.includes('tunnel')`)
	p.Click(t, "#found .acts button:first-child")
	p.Read(t, "the question", `document.querySelector('#ask').open`)
	p.Click(t, "#ask-yes")
	p.Read(t, "what was done", `document.querySelector('#toast').matches(':popover-open') && !document.querySelector('#ask').open`)

	for _, complaint := range p.Complaints() {
		t.Errorf("the page complains: %s", complaint)
	}
}

// keyOfATunnel returns the key of some client that is connected.
func (g *rig) keyOfATunnel() string {
	g.t.Helper()
	var list struct{ Tunnels []struct{ Key string } }
	g.read("tunnels?limit=1", &list)
	if len(list.Tunnels) == 0 || list.Tunnels[0].Key == "" {
		g.t.Fatalf("no key in %+v", list)
	}
	return list.Tunnels[0].Key
}
