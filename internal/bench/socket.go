//go:build linux

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A socket is the client's end of a WebSocket. It does one thing at a time:
// shakes hands, waits for a message, closes.
type socket struct {
	load    *load
	conn    *conn
	accept  string // what the handshake's answer must hold
	in      []byte // of the handshake's answer
	open    bool
	closing bool
	want    []byte // bytes to come
	got     int
	then    func(error) // nil when nothing is expected
}

// socket dials. Its handshake has ended when then is called.
func (l *load) socket(number int, then func(error)) (*socket, error) {
	conn, err := l.connect()
	if err != nil {
		return nil, err
	}
	key := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(make([]byte, 8), uint64(number)))
	s := &socket{load: l, conn: conn, accept: acceptKey(key), then: then}
	conn.received = s.received
	conn.send(fmt.Appendf(nil, "GET /ws HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: limpet-bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\nCookie: theme=dark\r\n\r\n", key))
	return s, nil
}

// exchange sends a frame, if any, and waits for another.
func (s *socket) exchange(frame, want []byte, then func(error)) {
	s.want, s.got, s.then = want, 0, then
	if s.conn.closed {
		s.done(errors.New("the tunnel is gone"))
	} else if frame != nil {
		s.conn.send(frame)
	}
}

var (
	goodbye  = []byte{0x03, 0xe8} // 1000, Normal Closure
	closeOut = appendFrame(nil, opClose, goodbye, true)
	closeIn  = appendFrame(nil, opClose, goodbye, false)
)

// bye closes the WebSocket as RFC 6455, section 7, wants it: a close frame each
// way, then the end of the connection.
func (s *socket) bye(then func(error)) {
	s.closing = true
	s.exchange(closeOut, closeIn, then)
}

func (s *socket) done(err error) {
	then := s.then
	s.then = nil
	switch {
	case then != nil:
		then(err)
	case err != nil:
		s.load.fault(err)
	}
}

func (s *socket) received(p []byte, err error) {
	switch {
	case err == io.EOF && s.closing && s.got == len(s.want):
		s.done(nil)
		return
	case err != nil:
		s.done(fmt.Errorf("tunnel lost: %w", err))
		return
	case !s.open:
		if p = s.handshake(p); len(p) == 0 {
			return
		}
	}
	n := min(len(p), len(s.want)-s.got)
	if s.then == nil || n < len(p) || !bytes.Equal(p, s.want[s.got:s.got+n]) {
		s.conn.close()
		s.done(fmt.Errorf("unexpected bytes in a tunnel: %.60q", p))
		return
	}
	if s.got += n; s.got == len(s.want) && !s.closing {
		s.done(nil)
	}
}

// handshake reads the answer and returns what came behind it.
func (s *socket) handshake(p []byte) []byte {
	s.in = append(s.in, p...)
	at := bytes.Index(s.in, []byte("\r\n\r\n"))
	if at < 0 {
		return nil
	}
	head, rest := s.in[:at+2], s.in[at+4:]
	s.in = nil
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) || field(head, "sec-websocket-accept") != s.accept {
		s.conn.close()
		s.done(fmt.Errorf("handshake answered with %.60q", head))
		return nil
	}
	s.open = true
	s.done(nil)
	return rest
}
