package balancer_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// A script is a connection to a backend that, once it is asked something, says
// these bytes, at most step of them at a time, and hangs up.
type script struct {
	net.Conn
	answer string
	step   int
	asked  chan struct{}
	once   sync.Once
}

func newScript(answer string, step int) *script {
	return &script{answer: answer, step: step, asked: make(chan struct{})}
}

func (s *script) Write(p []byte) (int, error) {
	s.once.Do(func() { close(s.asked) })
	return len(p), nil
}

func (s *script) Read(p []byte) (int, error) {
	<-s.asked
	if s.answer == "" {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.step)], s.answer)
	s.answer = s.answer[n:]
	return n, nil
}

func (s *script) Close() error {
	s.once.Do(func() { close(s.asked) })
	return nil
}

func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *script) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// oldUpgrade matches what hear says of a 101 before HTTP/1.1, which can't upgrade (RFC 9110,
// section 15.2). net/http upgrades nevertheless, and takes what follows for a body.
var oldUpgrade = regexp.MustCompile(`^HTTP/(0\.\d|1\.0) 101 `)

// FuzzAnswers compares what a Transport makes of an answer with what net/http's
// makes of it, however the bytes come in.
func FuzzAnswers(f *testing.F) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, answer := range []string{
		ok + "Content-Length: 5\r\n\r\nhello",
		ok + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
		ok + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
		ok + "Content-Length: 5, 5\r\n\r\nhello",
		ok + "Content-Length: -5\r\n\r\nhello",
		ok + "Content-Length: 0x5\r\n\r\nhello",
		ok + "Content-Length: \r\n\r\nhello",
		ok + "Content-Length : 5\r\n\r\nhello",
		ok + "Content-Length: 99999999999999999999\r\n\r\nhello",
		ok + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		ok + "Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		ok + "Transfer-Encoding:\x0bchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		ok + "Transfer-Encoding:\r\n chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		ok + "Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n00000;x\r\n\r\n",
		ok + "Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
		ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
		ok + "Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
		ok + "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
		ok + "Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n",
		ok + "Trailer: X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\nZ: z\r\n\r\n",
		ok + "Trailer: Content-Length\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX y\r\n\r\n",
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello" + ok + "\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 199 X\r\n\r\n" + ok + "\r\nhello",
		"HTTP/1.1 101 Switching Protocols\r\n\r\nhello",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello",
		"HTTP/1.0 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello",
		"HTTP/1.1 099 X\r\n\r\nhello", "HTTP/1.1 +12 X\r\n\r\n", "HTTP/1.1 -12 X\r\n\r\n", "HTTP/1.1 999 X\r\n\r\n",
		"HTTP/2.0 200 OK\r\n\r\n", "HTTP/0.9 200 OK\r\n\r\n", "http/1.1 200 OK\r\n\r\n", "HTTP/1.1  200 OK\r\n\r\n", "HTTP/1.1 200\r\n\r\n", "\r\n" + ok + "\r\n", "hello",
		"HTTP/1.1 200 OK\nX: y\n\nhello",
		ok + "Date: x\r\nConnection: Keep-Alive\r\nkeep-alive: timeout=5\r\ncontent-length:\t5 \t\r\nSet-Cookie: a\r\nX:\r\nSet-Cookie: b\r\n\r\nhello" + ok,
		ok + "Content-Length: 5\r\n\r\nhell", ok + "Content-Length: 5\r\nX: a\r\r\n\r\nhello", ok + "Content-Length: 5\r\nX: a\n\r\nhello", ok + "Content-Length: 5\r\nX: a\n\nhello\r\n\r\n",
		ok + "Content-Length: 5\r\nX: a\r\n\tb\r\n\r\nhello", ok + "Content-Length: 5\r\nPragma: no-cache\r\n\r\nhello", ok + "Content-Length: 5\r\nTrailer: X\r\n\r\nhello", ok + "Content-Length: +5\r\n\r\nhello",
		ok + "Content-Length: 005\r\nX : a\r\n\r\nhello", ok + "content-Length: 5\r\nContent-length: 5\r\n\r\nhello", ok + "Content-Length: 0\r\n\r\nhello", "HTTP/1.1 200 O\rK\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 200OK\r\nContent-Length: 5\r\n\r\nhello",
		ok + "X: a\r\n folded\r\n\r\n", ok + " X: y\r\n\r\n", ok + "X: a\x00b\r\n\r\n", ok + "X: a\rb\r\n\r\n", ok + ": y\r\n\r\n", ok + "X\xff: y\r\n\r\n", ok + "Pragma: no-cache\r\n\r\n",
		ok + "Connection: close, x\r\n\r\n", "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\nhello" + ok,
	} {
		f.Add("GET", []byte(answer), uint8(255))
		f.Add("HEAD", []byte(answer), uint8(1))
	}
	b, err := balancer.NewBackend("a", "http://a.test", 1)
	must(f, err)
	f.Fuzz(func(t *testing.T, method string, answer []byte, step uint8) {
		if step == 0 || method != "GET" && method != "HEAD" && method != "OPTIONS" {
			return
		}
		dial := func(context.Context, string, string) (net.Conn, error) {
			return newScript(string(answer), int(step)), nil
		}
		ours := &balancer.Transport{Dial: dial}
		defer ours.CloseIdleConnections()
		theirs := &http.Transport{DialContext: dial, DisableCompression: true, MaxResponseHeaderBytes: 1 << 20}
		defer theirs.CloseIdleConnections()
		got, want := hear(t, ours, b, method), hear(t, theirs, b, method)
		if oldUpgrade.MatchString(want) {
			return
		}
		if got != want {
			t.Errorf("%s: %q\nis %s\nwant %s", method, answer, got, want)
		}
	})
}

// hear returns what a RoundTripper makes of the answer to a request.
func hear(t *testing.T, rt http.RoundTripper, b *balancer.Backend, method string) string {
	req, err := http.NewRequestWithContext(balancer.WithBackend(t.Context(), b), method, "http://a.test/", nil)
	must(t, err)
	res, err := rt.RoundTrip(req)
	if err != nil {
		return "no answer"
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	return fmt.Sprintf("%s %s %q %d %q %v %v, body %q, trailer %q, broken %v", res.Proto, res.Status, res.Header, res.ContentLength, res.TransferEncoding, res.Close, res.Uncompressed, body, res.Trailer, err != nil)
}
