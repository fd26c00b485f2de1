package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strconv"
	"strings"

	"github.com/coder/websocket"
)

// An eioClient is a small client of Engine.IO, version 3 or 4, for the doctor. It does one
// step at a time and hides nothing of what comes back.
type eioClient struct {
	endpoint *url.URL // with the path, such as https://example.com/socket.io/
	version  int      // 3 or 4
	origin   string   // the field Origin, "" for none
	http     *http.Client
}

// An eioSession is an open packet.
type eioSession struct {
	SID          string
	Upgrades     []string
	PingInterval int // ms
	PingTimeout  int // ms
}

// An eioAnswer is an answer to a request of an eioClient.
type eioAnswer struct {
	*http.Response
	text    string
	packets []string // of a payload
}

// code returns the code of Engine.IO's own error, and -1 of any other answer.
func (a *eioAnswer) code() int {
	var e struct{ Code *int }
	if a.StatusCode < 400 || json.Unmarshal([]byte(a.text), &e) != nil || e.Code == nil {
		return -1
	}
	return *e.Code
}

// String describes the answer in a few words.
func (a *eioAnswer) String() string {
	return fmt.Sprintf("status %d with %q", a.StatusCode, printable(a.text[:min(len(a.text), 60)]))
}

// Codes of Engine.IO's errors.
const (
	codeUnknownTransport = 0
	codeUnknownSession   = 1
	codeBadRequest       = 3
	codeForbidden        = 4
	codeBadVersion       = 5
)

// newHTTPClient returns a client that follows no redirect. Without keepAlive each request
// has a connection of its own.
func newHTTPClient(transport *http.Transport, cookies, keepAlive bool) *http.Client {
	t := transport.Clone()
	t.DisableKeepAlives = !keepAlive
	c := &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if cookies {
		c.Jar, _ = cookiejar.New(nil) // never fails without options
	}
	return c
}

// target returns the URL of a request in a session, "" for the first one.
func (c *eioClient) target(transport, sid string) string {
	u := *c.endpoint
	q := u.Query()
	q.Set("EIO", strconv.Itoa(c.version))
	q.Set("transport", transport)
	if sid != "" {
		q.Set("sid", sid)
	}
	if c.version == 3 {
		q.Set("b64", "1") // text, which is framed in one way only
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// do sends a polling request: GET without packets, else POST.
func (c *eioClient) do(ctx context.Context, sid string, packets ...string) (*eioAnswer, error) {
	method, body := http.MethodGet, ""
	if len(packets) > 0 {
		method, body = http.MethodPost, encodePayload(c.version, packets)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.target("polling", sid), strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "text/plain;charset=UTF-8")
	}
	if c.origin != "" {
		req.Header.Set("Origin", c.origin)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("the answer broke off: %w", err)
	}
	return &eioAnswer{res, string(text), decodePayload(string(text))}, nil
}

// open opens a session by polling. The session is nil if the answer isn't one that opens
// it. It sets the client's version to that in which the server frames its packets.
func (c *eioClient) open(ctx context.Context) (*eioSession, *eioAnswer, error) {
	answer, err := c.do(ctx, "")
	if err != nil {
		return nil, nil, err
	}
	s := opened(answer.packets)
	if s != nil && answer.text[0] != '0' {
		c.version = 3 // Socket.IO 2 answers so, whatever version it is asked for
	}
	return s, answer, nil
}

// opened returns the session that these packets open, or nil.
func opened(packets []string) *eioSession {
	if len(packets) == 0 || !strings.HasPrefix(packets[0], "0{") {
		return nil
	}
	var s eioSession
	if json.Unmarshal([]byte(packets[0][1:]), &s) != nil || s.SID == "" {
		return nil
	}
	return &s
}

// alive sends what a client may send at any time, and does nothing but show that the
// session's node was reached.
func (c *eioClient) alive(ctx context.Context, sid string) (*eioAnswer, error) {
	if c.version == 3 {
		return c.do(ctx, sid, "2") // a ping
	}
	return c.do(ctx, sid, "3") // a pong
}

// provocation is what Socket.IO's server answers at once: a ping, and in version 4, where
// clients don't ping, the request to connect to a namespace that there isn't.
func (c *eioClient) provocation() string {
	if c.version == 3 {
		return "2"
	}
	return "40/limpet-doctor,"
}

// dial opens a WebSocket, for a session or a new one. Without a connection, the answer is
// what came instead.
func (c *eioClient) dial(ctx context.Context, sid string) (*websocket.Conn, *eioAnswer, error) {
	opts := &websocket.DialOptions{HTTPClient: c.http, CompressionMode: websocket.CompressionDisabled}
	if c.origin != "" {
		opts.HTTPHeader = http.Header{"Origin": {c.origin}}
	}
	conn, res, err := websocket.Dial(ctx, c.target("websocket", sid), opts)
	if err == nil {
		return conn, nil, nil
	}
	if res == nil {
		return nil, nil, err
	}
	text, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10)) // Dial has read the first KiB
	return nil, &eioAnswer{Response: res, text: string(text)}, err
}

// probe asks on a WebSocket for the answer to a probe, as a client does before it moves a
// session there.
func (c *eioClient) probe(ctx context.Context, conn *websocket.Conn) error {
	if err := conn.Write(ctx, websocket.MessageText, []byte("2probe")); err != nil {
		return err
	}
	_, data, err := conn.Read(ctx)
	if err == nil && string(data) != "3probe" {
		err = errors.New("the answer to the probe is another")
	}
	return err
}

// encodePayload frames packets for a POST.
func encodePayload(version int, packets []string) string {
	if version != 3 {
		return strings.Join(packets, "\x1e")
	}
	var b strings.Builder
	for _, p := range packets {
		fmt.Fprintf(&b, "%d:%s", len(p), p)
	}
	return b.String()
}

// decodePayload returns the packets of a payload of either version, nil if it is none.
func decodePayload(text string) (packets []string) {
	length, rest, framed := strings.Cut(text, ":")
	n, err := strconv.Atoi(length)
	if !framed || err != nil {
		if text == "" {
			return nil
		}
		return strings.Split(text, "\x1e")
	}
	for runes := []rune(rest); err == nil && n >= 0 && n <= len(runes); { // version 3 counts characters
		packets = append(packets, string(runes[:n]))
		length, rest, _ = strings.Cut(string(runes[n:]), ":")
		n, err = strconv.Atoi(length)
		runes = []rune(rest)
	}
	return packets
}
