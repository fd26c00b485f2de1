//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What backends answer. Polling answers end in the backend's number: a client
// with a cookie must always meet the same.
const (
	smallBody = `{"status":"ok","node":"up"}`
	pollBody  = `42["news",{"text":"nothing much"}] from `
	postBody  = "ok from "

	posted = `42["say",{"room":"rock","text":"here is what a client sends"}]`
)

var bigBody = bytes.Repeat([]byte("Limpets wander at high tide, and each one comes home to the scar that it has ground into its rock. \n"), 1<<20/100+1)[:1<<20]

// tell is the message that a backend process sends on to all its tunnels.
const tell = "tell everybody: the tide is coming in, be home in time"

// backends is a process of n backends, as cheap as can be: they share a core with
// the load generator. It prints their ports and ends with its standard input.
func backends(n int) error {
	l, err := newLoop()
	if err != nil {
		return err
	}
	defer l.close()
	tunnels := make(map[*conn]struct{})
	room := &waitingRoom{loop: l}
	ports := make([]string, n)
	for i := range n {
		node := &node{tunnels: tunnels, room: room, big: answer("application/octet-stream", nil, len(bigBody))}
		node.small = answer("application/json", []byte(smallBody), len(smallBody))
		node.well = answer("application/json", nil, len(smallBody))
		for body, whole := range map[string]*[]byte{pollBody: &node.poll, postBody: &node.post} {
			body := fmt.Append(nil, body, i)
			*whole = answer("text/plain; charset=UTF-8", body, len(body))
		}
		port, err := l.listen(node.accept)
		if err != nil {
			return err
		}
		ports[i] = strconv.Itoa(port)
	}
	fmt.Println(strings.Join(ports, " "))
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0) // whoever started it has gone
	}()
	for err == nil {
		err = l.turn(time.Minute)
	}
	return err
}

func answer(contentType string, body []byte, size int) []byte {
	head := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\nCache-Control: no-store\r\n\r\n", contentType, size)
	return append(head, body...)
}

// A node is one backend.
type node struct {
	small, poll, post []byte // whole answers
	big, well         []byte // without the body
	frame             []byte // for the next message
	tunnels           map[*conn]struct{}
	room              *waitingRoom
}

func (n *node) accept(c *conn) {
	g := &guest{node: n, conn: c}
	c.received = g.received
}

// A guest is a connection to a node.
type guest struct {
	*node
	*conn
	in       []byte // the begin of what isn't whole yet
	upgraded bool
}

func (g *guest) received(p []byte, err error) {
	if err != nil {
		delete(g.tunnels, g.conn)
		return
	}
	if len(g.in) > 0 {
		g.in = append(g.in, p...)
		p = g.in
	}
	for len(p) > 0 && !g.closed {
		handle := g.request
		if g.upgraded {
			handle = g.message
		}
		n := handle(p)
		if n == 0 {
			break
		}
		p = p[n:]
	}
	if len(p) == 0 {
		g.in = nil // an idle connection holds no buffer
	} else {
		g.in = slices.Clone(p)
	}
}

// request answers the first request in p and returns its length, 0 when it isn't
// whole yet. What nobody should ask for ends the process: answered with an error,
// it could pass for a health check of sick backends, and all that is measured
// would be how a gateway lives with these.
func (g *guest) request(p []byte) int {
	end := bytes.Index(p, []byte("\r\n\r\n"))
	if end < 0 {
		return 0
	}
	head, size := p[:end+2], end+4
	line := head[:bytes.IndexByte(head, '\r')]
	post := bytes.HasPrefix(line, []byte("POST "))
	if post {
		length, err := strconv.Atoi(field(head, "content-length"))
		if err != nil || length < 0 {
			panic(fmt.Sprintf("unexpected length of %q", head))
		}
		if size += length; len(p) < size {
			return 0
		}
	}
	switch {
	case post && bytes.HasSuffix(p[:size], []byte(posted)):
		g.send(g.post)
	case bytes.HasPrefix(line, []byte("GET /health ")), bytes.HasPrefix(line, []byte("GET /small ")):
		g.send(g.small)
	case bytes.HasPrefix(line, []byte("HEAD /health ")):
		g.send(g.well)
	case bytes.HasPrefix(line, []byte("GET /poll")):
		g.send(g.poll)
	case bytes.HasPrefix(line, []byte("GET "+waits)):
		g.room.hold(g, line)
	case bytes.HasPrefix(line, []byte("GET "+keeps+" ")):
		g.room.keep()
		g.send(g.small)
	case bytes.HasPrefix(line, []byte("GET "+releases+" ")):
		g.room.release()
		g.send(g.small)
	case bytes.HasPrefix(line, []byte("GET /big ")):
		g.send(g.big)
		g.sendShared(bigBody)
	case bytes.HasPrefix(line, []byte("GET /ws ")) && field(head, "upgrade") == "websocket":
		g.send(fmt.Appendf(nil, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
			acceptKey(field(head, "sec-websocket-key"))))
		g.upgraded = true
		g.tunnels[g.conn] = struct{}{}
	default:
		panic(fmt.Sprintf("unexpected request %q", p[:size]))
	}
	return size
}

// message answers the first WebSocket message in p as request does.
func (g *guest) message(p []byte) int {
	op, payload, n := cutFrame(p)
	switch {
	case n == 0:
	case op == opClose:
		g.send(appendFrame(nil, opClose, payload, false))
		delete(g.tunnels, g.conn)
		g.close()
	case string(payload) == tell:
		frame := appendFrame(nil, opBinary, payload, false)
		for c := range g.tunnels {
			c.sendShared(frame)
		}
	default:
		g.frame = appendFrame(g.frame[:0], op, payload, false)
		g.send(g.frame)
	}
	return n
}

// field returns the value of the header field with this name, which is in lower
// case.
func field(head []byte, name string) string {
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		if len(line) > len(name) && line[len(name)] == ':' && strings.EqualFold(string(line[:len(name)]), name) {
			return strings.TrimSpace(string(line[len(name)+1:]))
		}
	}
	return ""
}
