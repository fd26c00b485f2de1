package hostile_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// An answerRow is what a backend says to a request, and what its client may see.
//
// In says the notation is that of a row; at ␆ the backend waits until the client
// has its answer, and at ␄ it hangs up. What begins with "at once" it says before
// it was asked.
//
// sees has the answers that are safe, parted by ‖: a status alone, or all of one
// without what the gateway adds. ¶ parts it from informational ones before it, and
// ✂ means that it breaks off, there or before.
type answerRow struct {
	name string
	ask  string // the request line's method, "POST" if there is none
	says string
	sees string
}

// A liar says something hostile once, and then answers as a backend should.
type liar struct {
	says       string
	early      bool
	went, told chan struct{} // closed when the client has its answer, and when all has been said
	once       sync.Once
	asked      atomic.Int32
}

func (l *liar) serve(conn net.Conn) {
	ahead := false // an answer more has been given than was asked for
	if l.early {
		l.once.Do(func() { ahead = true })
		if ahead && l.lie(conn) {
			return
		}
		ahead = ahead && strings.Contains(l.says, "Length") // else that was no whole one
	}
	for r := bufio.NewReader(conn); ; {
		m, err := readHead(r)
		if err == nil {
			err = m.readBody(r, false)
		}
		if err == nil && ahead {
			_, err = r.Peek(1) // the true answer comes when there is somebody else to get it
		}
		if err != nil {
			return
		}
		if l.early || strings.HasPrefix(m.start, "GET /canary/") {
			answer := m.echo()
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
			continue
		}
		l.asked.Add(1)
		hangsUp := true
		l.once.Do(func() { hangsUp = l.lie(conn) })
		if hangsUp {
			return
		}
	}
}

// lie reports whether the backend hangs up behind it.
func (l *liar) lie(conn net.Conn) (hangsUp bool) {
	defer close(l.told)
	says, hangsUp := strings.CutSuffix(l.says, "␄")
	for i, piece := range strings.Split(says, "␆") {
		if i > 0 {
			<-l.went
		}
		io.WriteString(conn, wire(piece))
	}
	return hangsUp
}

func (r answerRow) run(t *testing.T) {
	says, early := strings.CutPrefix(r.says, "at once ")
	l := &liar{says: says, early: early, went: make(chan struct{}), told: make(chan struct{})}
	srv, _ := gateway(t, listen(t, l.serve), func() {
		if early { // what comes while the request is written looks like its answer
			<-l.told
		}
	})
	addr := srv.Listener.Addr().String()

	ask := r.ask
	if ask == "" {
		ask = "POST"
	}
	c := dial(t, addr)
	defer c.Close()
	request := "GET /a HTTP/1.1\nHost: t\n" + websocket + "\n"
	if ask != "websocket" {
		request = ask + " /a HTTP/1.1\nHost: t\nContent-Length: 0\n\n"
	}
	io.WriteString(c, wire(request))
	var saw []string
	var last *message
	var err error
	for {
		if last, err = c.answer(ask == "HEAD"); err != nil && !last.cut {
			break
		}
		saw = append(saw, last.seen())
		if status := last.status(); last.cut || status[0] != '1' || status == "101" {
			break
		}
	}
	close(l.went)
	<-l.told
	text := strings.Join(saw, "¶")
	fits := func(want string) bool {
		want, broken := strings.CutSuffix(want, "✂")
		got, cut := strings.CutSuffix(text, "✂")
		switch {
		case broken || cut:
			return broken && cut && strings.HasPrefix(want, got)
		case !strings.Contains(want, "\n") && len(saw) == 1:
			return last.status() == want
		}
		return text == want
	}
	if !slices.ContainsFunc(strings.Split(r.sees, "‖"), fits) {
		t.Errorf("saw (%v)\n%q, may be\n%q", err, text, r.sees)
	}
	if err == nil && last.status() != "101" {
		if err := c.canary(); err != nil && err != io.EOF {
			t.Errorf("behind it on the same connection: %v", err)
		}
	}
	canariesOn(t, addr)
	if n := l.asked.Load(); n > 1 && ask == "POST" {
		t.Errorf("the backend was asked %d times", n)
	}
	if t.Failed() {
		t.Logf("the backend said %q\nthe client read %q", wire(says), c.raw.String())
	}
}

// seen returns an answer as the table has it.
func (m *message) seen() string {
	text := m.text(func(f field) bool {
		switch f.name {
		case "Date", "X-Content-Type-Options", "Connection":
			return true
		case "Cache-Control":
			return f.value == "private, no-store"
		case "Set-Cookie":
			return strings.HasPrefix(f.value, "limpet=A")
		}
		return false
	})
	_, text, _ = strings.Cut(text, " ")
	if m.cut {
		text += "✂"
	}
	return text
}

// ok is an answer of 200, both as a backend gives it and as a client gets it.
func ok(fields, body string) string { return "200 OK\n" + fields + "\n" + body }

const (
	h11     = "HTTP/1.1 "
	another = "HTTP/1.1 200 OK\nContent-Length: 6\n\nforged"
)

var (
	hello  = ok("Content-Length: 5\n", "hello")
	pieces = ok("Transfer-Encoding: chunked\n", "hello") // of any size
)

var answerRows = []answerRow{
	{"plain", "", h11 + hello, hello},
	{"no reason", "", h11 + "200\nContent-Length: 5\n\nhello", hello + "‖502"},
	{"an odd reason", "", h11 + "200 <b>\x01␀\nContent-Length: 5\n\nhello", hello + "‖502"},
	{"a status of two digits", "", h11 + "20 OK\nContent-Length: 5\n\nhello", "502"},
	{"a status of four digits", "", h11 + "2000 OK\nContent-Length: 5\n\nhello", "502"},
	{"a status in words", "", h11 + "OK OK\nContent-Length: 5\n\nhello", "502"},
	{"status 0", "", h11 + "000 OK\nContent-Length: 5\n\nhello", "502"},
	{"status 99", "", h11 + "099 OK\nContent-Length: 5\n\nhello", "502"},
	{"status -20", "", h11 + "-20 OK\nContent-Length: 5\n\nhello", "502"},
	{"status +20", "", h11 + "+20 OK\nContent-Length: 5\n\nhello", "502"},
	{"status 0x1", "", h11 + "0x1 OK\nContent-Length: 5\n\nhello", "502"},
	{"status 600", "", h11 + "600 Odd\nContent-Length: 5\n\nhello", "600‖502"},
	{"status 999", "", h11 + "999 Odd\nContent-Length: 5\n\nhello", "999‖502"},
	{"two spaces", "", h11 + " 200 OK\nContent-Length: 5\n\nhello", hello + "‖502"},
	{"lower case", "", "http/1.1 200 OK\nContent-Length: 5\n\nhello", "502"},
	{"HTTP/1.0", "", "HTTP/1.0 200 OK\nContent-Length: 5\n\nhello", hello},
	{"HTTP/0.9", "", "hello\n␄", "502"},
	{"HTTP/2.0", "", "HTTP/2.0 200 OK\nContent-Length: 5\n\nhello", hello + "‖502"},
	{"HTTP/2 in frames", "", "\x00\x00\x00\x04\x00\x00\x00\x00\x00␄", "502"},
	{"HTTP/9.9", "", "HTTP/9.9 200 OK\nContent-Length: 5\n\nhello", hello + "‖502"},
	{"ICY", "", "ICY 200 OK\n\nhello␄", "502"},
	{"SSH", "", "SSH-2.0-OpenSSH_9.2\n␄", "502"},
	{"TLS", "", "\x15\x03\x01\x00\x02\x02\x46␄", "502"},
	{"nothing", "", "␄", "502"},
	{"empty lines", "", "\n\n\n␄", "502"},
	{"an empty line before", "", "\n" + h11 + hello, hello + "‖502"},
	{"a request", "", "GET / HTTP/1.1\nHost: t\n\n␄", "502"},
	{"half a head", "", h11 + "200 OK\nContent-Le␄", "502"},
	{"a head without end", "", h11 + "200 OK\nContent-Length: 5\n␄", "502"},

	// RFC 9112 section 6.3: chunks count; what is inconsistent is 502.
	{"CL and TE", "", h11 + ok("Content-Length: 3\nTransfer-Encoding: chunked\n", "5\nhello\n0\n\n"), pieces + "‖502"},
	{"CL and TE, an answer within", "", h11 + ok("Content-Length: 5\nTransfer-Encoding: chunked\n", "0\n\n"+another), ok("Transfer-Encoding: chunked\n", "") + "‖502‖" + ok("Content-Length: 0\n", "")},
	{"CL twice, equal", "", h11 + ok("Content-Length: 5\nContent-Length: 5\n", "hello"), hello + "‖502"},
	{"CL twice, different", "", h11 + ok("Content-Length: 5\nContent-Length: 6\n", "hello"), "502"},
	{"CL a list", "", h11 + ok("Content-Length: 5, 5\n", "hello"), hello + "‖502"},
	{"CL -1", "", h11 + ok("Content-Length: -1\n", "hello␄"), "502"},
	{"CL +5", "", h11 + ok("Content-Length: +5\n", "hello␄"), "502"},
	{"CL 0x5", "", h11 + ok("Content-Length: 0x5\n", "hello␄"), "502"},
	{"CL empty", "", h11 + ok("Content-Length:\n", "hello␄"), "502"},
	{"CL too large", "", h11 + ok("Content-Length: 99999999999999999999\n", "hello␄"), "502"},
	{"CL too long", "", h11 + ok("Content-Length: 9\n", "hello␄"), ok("Content-Length: 9\n", "hello") + "✂"},
	{"CL too short", "", h11 + ok("Content-Length: 3\n", "hello"), ok("Content-Length: 3\n", "hel")},
	{"CL by its underscore", "", h11 + ok("Content_Length: 9\nContent-Length: 5\n", "hello"), ok("Content-Length: 5\nContent_length: 9\n", "hello")},
	{"TE twice", "", h11 + ok("Transfer-Encoding: chunked\nTransfer-Encoding: chunked\n", "5\nhello\n0\n\n␄"), "502"},
	{"TE gzip, chunked", "", h11 + ok("Transfer-Encoding: gzip, chunked\n", "5\nhello\n0\n\n␄"), "502"},
	{"TE identity", "", h11 + ok("Transfer-Encoding: identity\nContent-Length: 5\n", "hello␄"), "502"},
	{"TE xchunked", "", h11 + ok("Transfer-Encoding: xchunked\n", "5\nhello\n0\n\n␄"), "502"},
	{"TE of HTTP/1.0", "", "HTTP/1.0 " + ok("Transfer-Encoding: chunked\n", "5\nhello\n0\n\n␄"), ok("Transfer-Encoding: chunked\n", "5\r\nhello\r\n0\r\n\r\n") + "‖502"}, // RFC 9112 section 6.1: faulty
	{"TE of 204", "", h11 + "204 No Content\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n", "204‖502"},
	{"no framing", "", h11 + ok("", "hello␄"), pieces},
	{"no framing, reset by nobody", "", h11 + ok("Connection: keep-alive\n", "hello␄"), pieces},
	{"chunks", "", h11 + ok("Transfer-Encoding: chunked\n", "5\nhello\n0\n\n"), pieces},
	{"a chunk extension", "", h11 + ok("Transfer-Encoding: chunked\n", "5;a=\"b\"\nhello\n0;c\n\n"), pieces},
	{"a chunk's line with LF", "", h11 + ok("Transfer-Encoding: chunked\n", "5␊hello\n0\n\n␄"), ok("Transfer-Encoding: chunked\n", "") + "✂"},
	{"a chunk's size too large", "", h11 + ok("Transfer-Encoding: chunked\n", "fffffffffffffffff\nhello\n0\n\n␄"), ok("Transfer-Encoding: chunked\n", "") + "✂"},
	{"a chunk's size negative", "", h11 + ok("Transfer-Encoding: chunked\n", "-5\nhello\n0\n\n␄"), ok("Transfer-Encoding: chunked\n", "") + "✂"},
	{"a chunk's size in words", "", h11 + ok("Transfer-Encoding: chunked\n", "five\nhello\n0\n\n␄"), ok("Transfer-Encoding: chunked\n", "") + "✂"},
	{"a chunk longer than its size", "", h11 + ok("Transfer-Encoding: chunked\n", "3\nhello\n0\n\n␄"), ok("Transfer-Encoding: chunked\n", "hel") + "✂"},
	{"the last chunk missing", "", h11 + ok("Transfer-Encoding: chunked\n", "5\nhello\n␄"), pieces + "✂"},
	{"the last CR LF missing", "", h11 + ok("Transfer-Encoding: chunked\n", "5\nhello\n0\n␄"), pieces + "✂"},
	{"trailers", "", h11 + ok("Trailer: Sum\nTransfer-Encoding: chunked\n", "5\nhello\n0\nSum: 1\n\n"), ok("Trailer: Sum\nTransfer-Encoding: chunked\n", "hello\nSum: 1\n")},
	{"trailers unannounced", "", h11 + ok("Transfer-Encoding: chunked\n", "5\nhello\n0\nSum: 1\n\n"), pieces + "‖" + ok("Transfer-Encoding: chunked\n", "hello\nSum: 1\n")},
	{"trailers that frame", "", h11 + ok("Transfer-Encoding: chunked\n", "5\nhello\n0\nContent-Length: 9\nTransfer-Encoding: x\nTrailer: y\nHost: z\n\n"), pieces},
	{"trailers that frame, announced", "", h11 + ok("Trailer: Content-Length\nTransfer-Encoding: chunked\n", "5\nhello\n0\nContent-Length: 9\n\n␄"), pieces + "‖502"},
	{"trailers that are hop by hop", "", h11 + ok("Trailer: Sum\nTransfer-Encoding: chunked\n", "5\nhello\n0\nSum: 1\nConnection: close\nKeep-Alive: a\n\n"), ok("Trailer: Sum\nTransfer-Encoding: chunked\n", "hello\nSum: 1\n")},
	{"trailers without colon", "", h11 + ok("Transfer-Encoding: chunked\n", "5\nhello\n0\nSum\n\n␄"), pieces + "✂"},

	{"an obs-fold", "", h11 + ok("A: b\n c\nContent-Length: 5\n", "hello"), ok("A: b c\nContent-Length: 5\n", "hello") + "‖502"},
	{"an obs-fold of the length", "", h11 + ok("Content-Length: 5\n 0\n", "hello␄"), "502"},
	{"a space before the colon", "", h11 + ok("A : b\nContent-Length: 5\n", "hello"), hello + "‖" + ok("A: b\nContent-Length: 5\n", "hello") + "‖502"}, // RFC 9112 section 5.1
	{"a length with a space before the colon", "", h11 + ok("Content-Length : 3\n", "hello␄"), pieces + "‖502‖" + ok("Content-Length: 3\n", "hel")},
	{"a space before the first name", "", h11 + "200 OK\n A: b\nContent-Length: 5\n\nhello␄", hello + "‖502"},
	{"a line without colon", "", h11 + ok("A\nContent-Length: 5\n", "hello␄"), "502"},
	{"a name that is none", "", h11 + ok("A(b: c\nContent-Length: 5\n", "hello"), hello + "‖502"},
	{"an empty name", "", h11 + ok(": c\nContent-Length: 5\n", "hello␄"), hello + "‖502"},
	{"a value with NUL", "", h11 + ok("A: b␀c\nContent-Length: 5\n", "hello"), hello + "‖502‖" + ok("A: b c\nContent-Length: 5\n", "hello")},
	{"a value with CR", "", h11 + ok("A: b␍c\nContent-Length: 5\n", "hello"), hello + "‖502‖" + ok("A: b c\nContent-Length: 5\n", "hello")},
	{"a value with control bytes", "", h11 + ok("A: b\x01\x7f\nContent-Length: 5\n", "hello"), hello + "‖502‖" + ok("A: b\x01\x7f\nContent-Length: 5\n", "hello")},
	{"a value that isn't ASCII", "", h11 + ok("A: \xff\nContent-Length: 5\n", "hello"), ok("A: \xff\nContent-Length: 5\n", "hello")},
	{"LF ends a line", "", "HTTP/1.1 200 OK␊Content-Length: 5␊␊hello", hello + "‖502"},
	{"many fields", "", h11 + ok(strings.Repeat("A: b\n", 3000)+"Content-Length: 5\n", "hello"), ok(strings.Repeat("A: b\n", 3000)+"Content-Length: 5\n", "hello") + "‖502"},
	{"too many fields", "", h11 + ok(strings.Repeat("A: b\n", 400_000)+"Content-Length: 5\n", "hello␄"), "502"},
	{"a huge field", "", h11 + ok("A: "+strings.Repeat("b", 3<<20)+"\nContent-Length: 5\n", "hello␄"), "502"},
	{"a huge status line", "", h11 + "200 " + strings.Repeat("b", 3<<20) + "\nContent-Length: 5\n\nhello␄", "502"},
	{"hop by hop", "", h11 + ok("Connection: A, Upgrade\nA: b\nUpgrade: h2c\nKeep-Alive: timeout=9\nProxy-Authenticate: Basic\nProxy-Connection: a\nTe: a\nContent-Length: 5\n", "hello"), hello},
	{"Connection names the length", "", h11 + ok("Connection: Content-Length\nContent-Length: 5\n", "hello"), hello + "‖" + pieces},
	{"Connection names the pin", "", h11 + ok("Connection: Set-Cookie, Cache-Control\nSet-Cookie: a=b\nContent-Length: 5\n", "hello"), hello},
	{"a forged pin", "", h11 + ok("Set-Cookie: limpet=forged\nContent-Length: 5\n", "hello"), hello},
	{"Date and Server", "", h11 + ok("Server: x\nContent-Length: 5\n", "hello"), ok("Content-Length: 5\nServer: x\n", "hello")},

	{"100", "", h11 + "100 Continue\n\n" + h11 + hello, hello},
	{"103", "", h11 + "103 Early Hints\nLink: </a>\n\n" + h11 + hello, "103 Early Hints\nLink: </a>\n\n¶" + hello + "‖" + hello},
	{"100 and 103", "", h11 + "100 Continue\n\n" + h11 + "103 Early Hints\nLink: </a>\n\n" + h11 + hello, "103 Early Hints\nLink: </a>\n\n¶" + hello + "‖" + hello},
	{"103 with a length", "", h11 + "103 Early Hints\nContent-Length: 5\n\n" + h11 + hello, "103 Early Hints\n\n¶" + hello + "‖" + hello + "‖502"},
	{"a storm of 100", "", strings.Repeat(h11+"100 Continue\n\n", 2000) + h11 + hello, hello + "‖502"},
	{"a storm of 102", "", strings.Repeat(h11+"102 Processing\n\n", 50) + h11 + hello, strings.Repeat("102 Processing\n\n¶", 50) + hello + "‖" + hello + "‖502"},
	{"100 and no more", "", h11 + "100 Continue\n\n␄", "502"},
	{"101 unasked", "", h11 + "101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\n" + h11 + hello, "502"},
	{"101 unasked, alone", "", h11 + "101 Switching Protocols\n\n" + h11 + hello, "502"},
	{"a head of 199", "", h11 + "199 Odd\n\n" + h11 + hello, "199 status code 199\n\n¶" + hello + "‖" + hello + "‖502"},

	{"two answers", "", h11 + hello + another, hello},
	{"two answers, the second late", "", h11 + hello + "␆" + another, hello},
	{"rubbish behind", "", h11 + hello + "\n\n", hello},
	{"rubbish behind, late", "", h11 + hello + "␆\n", hello},
	{"408 late", "", h11 + hello + "␆" + h11 + "408 Request Timeout\nContent-Length: 0\nConnection: close\n\n␄", hello},
	{"100 behind", "", h11 + hello + h11 + "100 Continue\n\n", hello},
	{"100 behind, late", "", h11 + hello + "␆" + h11 + "100 Continue\n\n", hello},
	{"two answers in chunks", "", h11 + ok("Transfer-Encoding: chunked\n", "5\nhello\n0\n\n") + another, pieces},
	{"a body to HEAD", "HEAD", h11 + ok("Content-Length: 37\n", another), ok("Content-Length: 37\n", "")},
	{"a body to HEAD, late", "HEAD", h11 + ok("Content-Length: 37\n", "␆"+another), ok("Content-Length: 37\n", "")},
	{"chunks to HEAD", "HEAD", h11 + ok("Transfer-Encoding: chunked\n", "0\n\n"+another), ok("Transfer-Encoding: chunked\n", "") + "‖" + ok("", "")},
	{"a body of 204", "", h11 + "204 No Content\n\n" + another, "204 No Content\n\n"},
	{"a body of 204 with a length", "", h11 + "204 No Content\nContent-Length: 37\n\n" + another, "204‖502"},
	{"a body of 304", "", h11 + "304 Not Modified\nContent-Length: 37\n\n" + another, "304‖502"},
	{"a body of 304, late", "", h11 + "304 Not Modified\n\n␆" + another, "304 Not Modified\n\n"},
	{"hangs up late", "", h11 + hello + "␆␄", hello},
	{"says close and goes on", "", h11 + ok("Connection: close\nContent-Length: 5\n", "hello") + "␆" + another, hello},
	{"says keep-alive for ever", "", "HTTP/1.0 " + ok("Connection: keep-alive\nKeep-Alive: timeout=99999999999999999999\nContent-Length: 5\n", "hello") + "␆" + another, hello},

	// A fresh connection whose backend speaks first is out of step with it.
	{"at once, whole", "", "at once " + another, "200‖502"},
	{"at once, 100", "", "at once " + h11 + "100 Continue\n\n", "200‖502"},
	{"at once, 400", "", "at once " + h11 + "400 Bad Request\nContent-Length: 0\n\n", "400‖200‖502"},
	{"at once, 408 and the end", "", "at once " + h11 + "408 Request Timeout\nContent-Length: 0\nConnection: close\n\n␄", "408‖502"},
	{"at once, half", "", "at once HTTP/1.1 200 OK\nX: ", "200‖502"},
	{"at once, to HEAD", "HEAD", "at once " + h11 + ok("Content-Length: 37\n", ""), "200‖502"},

	{"handshake, wrong accept", "websocket", h11 + "101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Accept: AAAA\n\n", "502"},
	{"handshake, no accept", "websocket", h11 + "101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\n", "502"},
	{"handshake, another protocol", "websocket", h11 + "101 Switching Protocols\nConnection: Upgrade\nUpgrade: h2c\n\n", "502"},
	{"handshake, no Upgrade", "websocket", h11 + "101 Switching Protocols\n\n", "502"},
	{"handshake, refused", "websocket", h11 + "403 Forbidden\nContent-Length: 2\n\nno", "403 Forbidden\nContent-Length: 2\n\nno"},
	{"handshake, refused and cut off", "websocket", h11 + "403 Forbidden\nContent-Length: 9\n\nno␄", "403 Forbidden\nContent-Length: 9\n\nno✂"},
	{"handshake, an answer behind", "websocket", h11 + "403 Forbidden\nContent-Length: 2\n\nno" + another, "403 Forbidden\nContent-Length: 2\n\nno"},
	{"handshake, a huge field", "websocket", h11 + "101 Switching Protocols\nA: " + strings.Repeat("b", 1<<20) + "\n\n␄", "502"},
	{"handshake, a storm of 100", "websocket", strings.Repeat(h11+"100 Continue\n\n", 9000) + "␄", "502"},
	{"handshake, nonsense", "websocket", "x\n␄", "502"},
	{"handshake, nothing", "websocket", "␄", "502"},
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, r := range answerRows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			r.run(t)
		})
	}
}
