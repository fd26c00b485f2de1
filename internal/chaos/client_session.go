//go:build unix

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// A talk is a client's session: it sends numbered messages, one at a time, and awaits the
// echo of each. A message that wasn't echoed is sent again in the next session.
type talk struct {
	*client
	op      // the session's: gateway, backend, boot, session, socket
	echoes  chan string
	over    chan op // the kindEnd that ends the session, once
	deliver func(ctx context.Context, packet string) error
}

// converse sends messages until the session or ctx ends.
func (t *talk) converse(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case end := <-t.over:
			t.history.add(end)
			return
		case echo := <-t.echoes:
			t.stray(echo)
			return
		case <-time.After(thinkTime/2 + time.Duration(t.random.Int64N(int64(thinkTime)))):
		case <-ctx.Done():
			return
		}
		if !t.say(ctx) {
			return
		}
	}
}

// say sends the next message and awaits its echo. It reports whether the session goes on.
func (t *talk) say(ctx context.Context) bool {
	m := t.op
	m.kind, m.n, m.start, m.end = kindMessage, t.client.n+1, t.history.now(), 0
	patience, cancel := context.WithTimeout(ctx, clientPatience)
	defer cancel()
	sent := make(chan error, 1)
	go func() { sent <- t.deliver(patience, "4"+strconv.Itoa(m.n)) }()
	fail := func(why string) bool {
		if ctx.Err() == nil {
			m.err = why
			t.history.add(m)
		}
		return false
	}
	for echoed, waiting := false, sent; ; {
		if echoed && waiting == nil {
			return true
		}
		select {
		case echo := <-t.echoes:
			n, seq, _ := strings.Cut(echo, ":")
			if echoed || atoi(n) != m.n {
				t.stray(echo)
				return fail("another message was echoed")
			}
			m.seq, echoed = atoi(seq), true
			t.history.add(m)
			t.client.n++
		case err := <-waiting:
			waiting = nil
			if err != nil && !t.tunnel { // a WebSocket's reader tells how it ended
				return t.finish(ctx, t.ended(brief(err)), echoed, fail)
			}
		case end := <-t.over:
			return t.finish(ctx, end, echoed, fail)
		case <-patience.Done():
			return fail("no echo")
		}
	}
}

// finish notes the end of the session, and that of the message if it wasn't echoed.
func (t *talk) finish(ctx context.Context, end op, echoed bool, fail func(string) bool) bool {
	if ctx.Err() == nil {
		t.history.add(end)
	}
	return !echoed && fail(end.err)
}

func (t *talk) stray(echo string) {
	s := t.op
	s.kind, s.start, s.end, s.err = kindStray, t.history.now(), 0, "echo "+echo+" comes though nobody waits for it"
	t.history.add(s)
}

// ended returns the op of the session's end.
func (t *talk) ended(why string) op {
	o := t.op
	o.kind, o.start, o.end, o.err = kindEnd, t.history.now(), 0, why
	return o
}

// adopt takes over what the packet says that opens a session.
func (t *talk) adopt(packet string) error {
	var o struct{ SID, Boot string }
	text, ok := strings.CutPrefix(packet, "0")
	if err := json.Unmarshal([]byte(text), &o); !ok || err != nil || o.SID == "" {
		return fmt.Errorf("no opening packet: %.60q", packet)
	}
	t.session = o.SID
	t.boot, t.backend = o.Boot, backendOf(o.Boot)
	return nil
}

// backendOf returns the backend of a boot.
func backendOf(boot string) string {
	id, _, _ := strings.Cut(boot, "#")
	return id
}

// socket is the life of a client whose session is a WebSocket. It reads a page before, as
// browsers do, so that the handshake comes on a connection that is there already.
func (c *client) socket(ctx context.Context) {
	t := &talk{client: c, echoes: make(chan string, 16), over: make(chan op, 1)}
	page := c.send(ctx, kindGet, http.MethodGet, fmt.Sprintf("/plain?client=%s&n=0", c.id), "")
	if ctx.Err() != nil {
		return
	}
	c.history.add(page.op)
	if !page.ok() {
		return
	}
	gateway := c.balancer.choose(c.random)
	t.op = op{client: c.id, kind: kindOpen, start: c.history.now(), gateway: gateway.id, tunnel: true}
	opening, cancel := context.WithTimeout(ctx, clientPatience)
	defer cancel()
	conn, res, err := websocket.Dial(opening, "ws://"+gateway.addr+"/socket.io/?EIO=4&transport=websocket", &websocket.DialOptions{HTTPClient: c.web})
	if res != nil {
		t.note(res)
	}
	if err == nil {
		defer conn.CloseNow()
		var data []byte
		if _, data, err = conn.Read(opening); err == nil {
			err = t.adopt(string(data))
		}
	}
	if ctx.Err() != nil {
		return
	}
	opened := t.op
	if err != nil {
		opened.err, opened.code = brief(err), closeCode(err)
		c.history.add(opened)
		return
	}
	c.history.add(opened)
	t.deliver = func(ctx context.Context, packet string) error {
		// The end of a Write's context would close the connection.
		return conn.Write(context.WithoutCancel(ctx), websocket.MessageText, []byte(packet))
	}
	go func() { // ends with conn
		for {
			_, data, err := conn.Read(context.Background())
			if err != nil {
				end := t.ended(err.Error())
				end.code, end.end = closeCode(err), end.start
				t.over <- end
				return
			}
			text, _ := strings.CutPrefix(string(data), "4")
			t.echoes <- text
		}
	}()
	t.converse(ctx)
	if ctx.Err() != nil {
		conn.Close(websocket.StatusNormalClosure, "")
	}
}

// closeCode returns the code of the close frame in err, 0 if there is none.
func closeCode(err error) int { return max(0, int(websocket.CloseStatus(err))) }

// polling is the life of a client whose session polls, by a version of the protocol.
func (c *client) polling(version string) func(context.Context) {
	return func(ctx context.Context) {
		base := "/socket.io/?EIO=" + version + "&transport=polling"
		opened := c.send(ctx, kindOpen, http.MethodGet, base, "")
		if ctx.Err() != nil {
			return
		}
		t := &talk{client: c, op: opened.op, echoes: make(chan string, 16), over: make(chan op, 1)}
		var sid string
		if opened.ok() {
			packets := decodePackets(version, opened.body)
			if err := t.adopt(strings.Join(packets, "")); err != nil {
				opened.err = err.Error()
			}
			sid, t.session = t.session, untagged(t.session)
			opened.session = t.session
		}
		c.history.add(opened.op)
		if !opened.ok() {
			return
		}
		target := base + "&sid=" + url.QueryEscape(sid)
		session, stop := context.WithCancel(ctx)
		defer stop()
		side := *c
		side.n = 0 // polls have no number
		request := func(ctx context.Context, method, body string) (answer, error) {
			own := side
			own.random = rand.New(rand.NewPCG(rand.Uint64(), 0)) // not shared between goroutines
			a := own.send(ctx, kindPoll, method, target, body)
			a.session, a.home = t.session, t.backend
			if ctx.Err() == nil {
				c.history.add(a.op)
			}
			if !a.ok() {
				return a, fmt.Errorf("%s: %s", method, a.err)
			}
			return a, nil
		}
		t.deliver = func(ctx context.Context, packet string) error {
			_, err := request(ctx, http.MethodPost, encodePackets(version, []string{packet}))
			return err
		}
		polled := make(chan struct{})
		defer func() { <-polled }()
		defer stop()
		go func() { // ends with the session's context
			defer close(polled)
			for session.Err() == nil {
				a, err := request(session, http.MethodGet, "")
				if err != nil {
					t.over <- t.ended(brief(err))
					return
				}
				for _, p := range decodePackets(version, a.body) {
					if text, ok := strings.CutPrefix(p, "4"); ok {
						t.echoes <- text
					}
				}
			}
		}()
		t.converse(session)
		if ctx.Err() != nil { // it leaves in order
			bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			c.send(bye, kindPoll, http.MethodPost, target, encodePackets(version, []string{"1"}))
		}
	}
}

// untagged returns the node's own sid: the gateway may have put a tag behind it.
func untagged(sid string) string {
	sid, _, _ = strings.Cut(sid, ".")
	return sid
}
