package main

import (
	"context"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"github.com/limpet-go/limpet/internal/browser"
	"github.com/limpet-go/limpet/internal/leaktest"
	"github.com/limpet-go/limpet/internal/process"
	"github.com/limpet-go/limpet/internal/redistest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// machine starts the example as on a machine of its own, and returns its URL.
func machine(t *testing.T, args ...string) (*process.Process, string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "chat")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	p := process.Start(t, exec.Command(program, append([]string{"-listen", "127.0.0.1:0"}, args...)...))
	_, url, _ := strings.Cut(p.AwaitLine(t, "^Open http"), " ")
	url, _, _ = strings.Cut(url, "/ ")
	return p, url
}

// client is a visitor with cookies.
type client struct {
	t     *testing.T
	url   string
	http  *http.Client
	conn  *websocket.Conn
	hello message
}

func visit(t *testing.T, url, name, room string) *client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c := &client{t: t, url: url + "/chat?name=" + name, http: &http.Client{Jar: jar, Transport: transport}}
	c.connect(room)
	return c
}

// connect connects, and returns when the client is in the room.
func (c *client) connect(room string) {
	c.t.Helper()
	conn, _, err := websocket.Dial(c.t.Context(), c.url, &websocket.DialOptions{HTTPClient: c.http})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { conn.CloseNow() })
	c.conn = conn
	c.hello = c.await("hello", func(message) bool { return true })
	c.send(message{Type: "enter", Room: room})
	c.send(message{Type: "who"})
	c.await("people", func(m message) bool {
		return slices.ContainsFunc(m.People, func(p person) bool { return p.ID == c.hello.ID })
	})
}

func (c *client) send(m message) {
	c.t.Helper()
	if err := wsjson.Write(c.t.Context(), c.conn, m); err != nil {
		c.t.Fatal(err)
	}
}

// await reads until a message of a kind comes for which ok is true.
func (c *client) await(kind string, ok func(message) bool) message {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), process.Patience)
	defer cancel()
	for {
		var m message
		if err := wsjson.Read(ctx, c.conn, &m); err != nil {
			c.t.Fatalf("waiting for %q: %v", kind, err)
		}
		if m.Type == kind && ok(m) {
			return m
		}
	}
}

// hears awaits what is said, and that nothing else is said before.
func (c *client) hears(want message) {
	c.t.Helper()
	if got := c.await("said", func(message) bool { return true }); got.Text != want.Text || got.From != want.From || got.To != want.To {
		c.t.Errorf("heard %+v, want %+v", got, want)
	}
}

// talk has three clients, the last of whom is in another room, use all there is.
func talk(t *testing.T, ann, bob, cid *client) {
	t.Helper()
	ann.send(message{Type: "say", Text: "low tide"})
	bob.hears(message{From: "ann", Text: "low tide"})
	ann.hears(message{From: "ann", Text: "low tide"})
	bob.send(message{Type: "say", To: cid.hello.ID, Text: "psst"})
	cid.hears(message{From: "bob", To: cid.hello.ID, Text: "psst"})
	cid.send(message{Type: "enter", Room: "pool"})
	ann.await("changed", func(message) bool { return true })
	ann.send(message{Type: "who"})
	ann.await("people", func(m message) bool { return len(m.People) == 3 })
	cid.send(message{Type: "say", Text: "high tide"})
	ann.hears(message{From: "cid", Text: "high tide"})
}

// Three nodes of one process are one chat.
func TestChat(t *testing.T) {
	t.Parallel()
	p, url := machine(t)
	ann, bob, cid := visit(t, url, "ann", "pool"), visit(t, url, "bob", "pool"), visit(t, url, "cid", "sea")
	nodes := []string{ann.hello.Node, bob.hello.Node, cid.hello.Node}
	if slices.Sort(nodes); len(slices.Compact(nodes)) != 3 {
		t.Errorf("not on three nodes: %q", nodes)
	}
	talk(t, ann, bob, cid)

	home := ann.hello.Node
	ann.conn.CloseNow()
	if ann.connect("pool"); ann.hello.Node != home {
		t.Errorf("came back to %s, was on %s", ann.hello.Node, home)
	}
	p.Signal(t, os.Interrupt)
	for {
		if _, _, err := bob.conn.Read(t.Context()); err != nil {
			if code := websocket.CloseStatus(err); code != websocket.StatusServiceRestart {
				t.Errorf("closed with %d", code)
			}
			break
		}
	}
	if code := p.End(t); code != 0 {
		t.Errorf("ended with %d", code)
	}
}

// Two machines with a Redis between them are one chat, and stay one when Redis
// was away.
func TestChatRedis(t *testing.T) {
	t.Parallel()
	for _, streams := range []string{"-streams=false", "-streams"} {
		t.Run(streams, func(t *testing.T) {
			t.Parallel()
			redis := redistest.Start(t)
			_, here := machine(t, "-nodes", "1", "-name", "here", "-redis", "redis://"+redis.Addr, streams)
			_, there := machine(t, "-nodes", "1", "-name", "there", "-redis", "redis://"+redis.Addr, streams)
			ann, bob, cid := visit(t, here, "ann", "pool"), visit(t, there, "bob", "pool"), visit(t, here, "cid", "sea")
			talk(t, ann, bob, cid)

			redis.Kill()
			ann.send(message{Type: "say", Text: "anybody there?"})
			if streams == "-streams=false" { // otherwise it comes to all nodes in one order, over Redis, or not at all
				ann.hears(message{From: "ann", Text: "anybody there?"})
			}
			redis.Restart(t)
			bob.await("missed", func(message) bool { return true })
			stop := make(chan struct{})
			var saying sync.WaitGroup
			saying.Go(func() { // the first time may be too early
				for tick := time.NewTicker(50 * time.Millisecond); ; {
					select {
					case <-tick.C:
						_ = wsjson.Write(t.Context(), ann.conn, message{Type: "say", Text: "again"})
					case <-stop:
						tick.Stop()
						return
					}
				}
			})
			defer saying.Wait()
			defer close(stop)
			bob.await("said", func(m message) bool { return m.Text == "again" })
		})
	}
}

// Two visitors see and hear each other on the page.
func TestPage(t *testing.T) {
	t.Parallel()
	chromium := browser.Start(t)
	_, url := machine(t)
	const title = `document.querySelector('h1').textContent.match(/ on (.*)/)?.[1]`
	first, second := chromium.Open(t, url), chromium.Open(t, url)
	if a, b := first.Read(t, "its node", title), second.Read(t, "its node", title); a == b {
		t.Errorf("both are on %s", a)
	}
	for _, page := range []*browser.Page{first, second} {
		page.Read(t, "the other visitor", `document.querySelectorAll('#people li').length == 2 && 'there'`)
	}
	// The second page has the keyboard: it was opened last.
	second.Type(t, "#say input", "Hello <b>you</b>\n")
	for _, page := range []*browser.Page{first, second} {
		line := page.Read(t, "the line", `document.querySelector('#lines li')?.textContent`)
		if !strings.HasSuffix(line, "Hello <b>you</b>") {
			t.Errorf("the page shows %q", line)
		}
	}
}
