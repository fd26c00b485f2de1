package hostile_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
)

// Types and flags of frames, RFC 9113 section 6, as far as they are needed.
const (
	data, headers, priority, rstStream, settings, pushPromise, ping, goAway, windowUpdate, continuation = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9

	endStream, ack, endHeaders = 1, 1, 4
)

// frame returns one as raw bytes.
func frame(kind, flags byte, stream uint32, payload string) string {
	b := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	return string(binary.BigEndian.AppendUint32(b, stream)) + payload
}

// block returns fields in HPACK, all literally and without Huffman (RFC 7541 section
// 6.2.2). They are given as lines of a name, a space and a value.
func block(lines string) string {
	var b []byte
	for line := range strings.Lines(lines) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		b = appendString(appendString(append(b, 0), name), value)
	}
	return string(b)
}

func appendString(b []byte, s string) []byte {
	if n := len(s); n < 127 {
		b = append(b, byte(n))
	} else {
		b = append(b, 127)
		for n -= 127; ; n >>= 7 {
			if n < 128 {
				b = append(b, byte(n))
				break
			}
			b = append(b, byte(n)|128)
		}
	}
	return append(b, s...)
}

// asks returns the frames of a request of stream 1: the fields that every request
// has, unless more has them, and those of more.
func asks(more, body string, trailers ...string) string {
	var lines string
	for _, line := range []string{":method GET", ":scheme http", ":authority t", ":path /"} {
		if name, _, _ := strings.Cut(line, " "); !strings.HasPrefix(more, name+" ") && !strings.Contains(more, "\n"+name+" ") {
			lines += line + "\n"
		}
	}
	flags := byte(endHeaders)
	if body == "" && len(trailers) == 0 {
		return frame(headers, flags|endStream, 1, block(pseudoFirst(lines+more)))
	}
	frames := frame(headers, flags, 1, block(pseudoFirst(lines+more)))
	if len(trailers) == 0 {
		return frames + frame(data, endStream, 1, body)
	}
	return frames + frame(data, 0, 1, body) + frame(headers, endHeaders|endStream, 1, block(trailers[0]))
}

// pseudoFirst puts the fields whose names begin with a colon before the others.
func pseudoFirst(lines string) string {
	var first, rest string
	for line := range strings.Lines(lines) {
		if strings.HasPrefix(line, ":") {
			first += line
		} else {
			rest += line
		}
	}
	return first + rest
}

// An h2row is what a client sends behind the preface and its settings, and what
// may become of it: reaches is as in a row, and back has the statuses that are
// safe, or "reset" for the end of the stream and "gone" for that of the connection.
type h2row struct{ name, send, reaches, back string }

func (r h2row) run(t *testing.T, to rig) {
	c := dial(t, to.addr)
	defer c.Close()
	io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+frame(settings, 0, 0, "\x00\x01\x00\x00\x00\x00")+r.send) // the peer's table of fields has no room
	status, body, err := c.stream(1)
	if err != nil || !slices.Contains(strings.Split(r.back, "|"), status) {
		t.Errorf("got %q (%v), want %s", status, err, r.back)
	}
	if status != "gone" {
		target := fmt.Sprintf("/canary/%d", canaries.Add(1))
		io.WriteString(c, strings.ReplaceAll(asks(":path "+target+"\n:authority canary\n", ""), "\x00\x00\x00\x01\x00", "\x00\x00\x00\x03\x00"))
		got, text, err := c.stream(3)
		if want := served + "GET " + target + " HTTP/1.1 at canary "; err != nil || got != "200" || text != want {
			t.Errorf("the next request of the connection got %s %q (%v), want %q", got, text, err, want)
		}
	}
	c.Close()
	var answers []*message
	if strings.HasPrefix(status, "2") {
		answers = []*message{{start: "HTTP/2 " + status, body: body}}
	}
	raw := to.conclude(t, r.reaches, answers, status == "reset" || status == "gone")
	if t.Failed() {
		t.Logf("sent %q\nthe client read %q\nthe backend read %q", r.send, c.raw.String(), raw)
	}
}

// stream reads frames until the end of a stream and returns its status and body. An
// end of the connection is the status "gone", one of the stream alone "reset".
func (c *client) stream(id uint32) (status, body string, err error) {
	for {
		head := make([]byte, 9)
		if _, err := io.ReadFull(c.r, head); err != nil {
			if _, broken := errors.AsType[*net.OpError](err); isTimeout(err) || !broken && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return status, body, err
			}
			return "gone", body, nil
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(c.r, payload); err != nil {
			return "gone", body, nil
		}
		kind, flags, of := head[3], head[4], binary.BigEndian.Uint32(head[5:])
		switch {
		case kind == settings && flags&ack == 0:
			io.WriteString(c, frame(settings, ack, 0, ""))
		case kind == goAway:
			return "gone", body, nil
		case of != id:
		case kind == rstStream && status == "":
			return "reset", body, nil
		case kind == rstStream:
			return status, body, nil
		case kind == data:
			body += string(payload)
		case kind == headers && status == "":
			if status, err = readStatus(payload); err != nil {
				return status, body, err
			}
			if status[0] == '1' {
				status = ""
			}
		}
		if of == id && flags&endStream != 0 && (kind == data || kind == headers) {
			return status, body, nil
		}
	}
}

// readStatus reads :status, which comes first in a block (RFC 7541): one of the
// static table, or a literal whose digits may be in Huffman's code.
func readStatus(b []byte) (string, error) {
	for len(b) > 0 && b[0]>>5 == 1 { // the size of the table
		b = b[1:]
	}
	static := []string{"200", "204", "206", "304", "400", "404", "500"} // from 8 on
	if len(b) == 0 || b[0]&15 < 8 || b[0]&15 > 14 {
		return "", fmt.Errorf("no :status first in %q", b)
	}
	switch {
	case b[0]&0x80 != 0:
		return static[b[0]&15-8], nil
	case len(b) > 4 && b[1] == 3:
		return string(b[2:5]), nil
	case len(b) > 3 && b[1] == 0x80|2:
		bits, digits := uint(b[2])<<8|uint(b[3]), ""
		for left := 16; left >= 5 && len(digits) < 3; {
			if five := bits >> (left - 5) & 31; five < 3 {
				digits, left = digits+string(rune('0'+five)), left-5
			} else {
				six := bits >> max(left-6, 0) & 63
				digits, left = digits+string(rune('3'+six-0x19)), left-6
			}
		}
		return digits, nil
	}
	return "", fmt.Errorf("no :status first in %q", b)
}

// What the backend gets of a body of unknown length.
func h2post(body string) string { return post("Transfer-Encoding: chunked\n", body) }

var h2rows = []h2row{
	{"plain", asks("", ""), get("/"), "200"},
	{"a body", asks(":method POST\n", "hello"), h2post("hello"), "200"},
	{"a body of a length", asks(":method POST\ncontent-length 5\n", "hello"), lengthed, "200"},

	{"path, query", asks(":path /a?b|c\n", ""), get("/a?b|c"), "200"},
	// A space can't be written in a request line; escaped it means the same.
	{"path, space", asks(":path /a b\n", ""), get("/a%20b"), "400|200|reset"},
	{"path, space and a version", asks(":path /a HTTP/1.1\n", ""), get("/a%20HTTP/1.1"), "400|200|reset"},
	{"path, space in the query", asks(":path /a?b c\n", ""), get("/a?b%20c"), "400|200|reset"},
	{"path, CR LF", asks(":path /a\r\x0aX\n", ""), "", "400|reset|gone"},
	{"path, tab", asks(":path /a\tb\n", ""), "", "400|reset|gone"},
	{"path, not ASCII", asks(":path /\xc3\xa9\n", ""), get("/\xc3\xa9"), "400|200|reset"},
	{"path, two slashes", asks(":path //a|b%2f%2e%2e%2fc\n", ""), get("//a|b%2f%2e%2e%2fc"), "400|200"},
	{"path, escaped slash and a space", asks(":path /a%2fb c\n", ""), get("/a%2fb%20c"), "400|200|reset"},
	{"path, escaped", asks(":path /a%2fb|^\"\n", ""), get("/a%2fb|^\""), "400|200"},
	{"path, fragment", asks(":path /a#b\n", ""), get("/a#b"), "400|200|reset"},
	{"path, opaque", asks(":path x:http://evil.test/admin/x\n", ""), "", "400|reset"},
	{"path, opaque and short", asks(":path x:admin\n", ""), "", "400|reset"},
	{"path, absolute", asks(":path http://u/a\n", ""), get("/a") + "‖GET /a HTTP/1.1\nHost: u\n\n", "400|200|reset"},
	{"path, absolute with userinfo", asks(":path http://x@t/a\n", ""), "", "400|reset"},
	{"path, file", asks(":path file:///a\n", ""), "", "400|reset"},
	{"path, asterisk", asks(":path *\n", ""), "", "400|reset"},
	{"path, asterisk of OPTIONS", asks(":path *\n:method OPTIONS\n", ""), "OPTIONS * HTTP/1.1\nHost: t\n\n", "200|400"},
	{"path, empty", asks(":path \n", ""), "", "400|reset|gone"},
	{"path, no slash", asks(":path a\n", ""), "", "400|reset|gone"},
	{"path, NUL", asks(":path /\x00\n", ""), "", "400|reset|gone"},
	{"path, twice", asks(":path /a\n:path /b\n", ""), "", "400|reset|gone"},
	{"path, behind a field", frame(headers, endHeaders|endStream, 1, block(":method GET\n:scheme http\na b\n:path /\n")), "", "400|reset|gone"},
	{"path, missing", frame(headers, endHeaders|endStream, 1, block(":method GET\n:scheme http\n:authority t\n")), "", "400|reset|gone"},

	{"method, none", asks(":method \n", ""), "", "400|reset|gone"},
	{"method, a request line", asks(":method GET / HTTP/1.1\n", ""), "", "400|reset|gone"},
	{"method, CR LF", asks(":method GET\r\n", ""), "", "400|reset|gone"},
	{"method, odd", asks(":method G(T\n", ""), "", "400|501|502|reset|gone"},
	{"method, CONNECT", frame(headers, endHeaders|endStream, 1, block(":method CONNECT\n:authority t:80\n")), "", "400|405|501|reset"},
	{"method, CONNECT with a path", asks(":method CONNECT\n", ""), "", "400|405|501|reset"},
	{"scheme, none", frame(headers, endHeaders|endStream, 1, block(":method GET\n:authority t\n:path /\n")), "", "400|reset|gone"},
	{"scheme, another", asks(":scheme ftp\n", ""), "", "400|reset|gone"},
	{"a field of an answer", asks(":status 200\n", ""), "", "400|reset|gone"},
	{"an unknown pseudo field", asks(":a b\n", ""), "", "400|reset|gone"},

	{"authority, spaces", asks(":authority t test\n", ""), "", "400|reset"},
	{"authority, slash", asks(":authority t.test/x\n", ""), "", "400|reset"},
	{"authority, number sign", asks(":authority t#x\n", ""), "", "400|reset"},
	{"authority, question mark", asks(":authority t?x\n", ""), "", "400|reset"},
	{"authority, userinfo", asks(":authority u@t\n", ""), "", "400|reset"},
	{"authority, port", asks(":authority t:x\n", ""), "", "400|reset"},
	{"authority, bracket", asks(":authority [::1\n", ""), "", "400|reset"},
	{"authority, escape", asks(":authority t%zz\n", ""), "", "400|reset"},
	{"authority, CR LF", asks(":authority t\r\x0aX: y\n", ""), "", "400|reset|gone"},
	{"authority, not ASCII", asks(":authority t\xc3\xa9\n", ""), "", "400|reset"},
	{"authority, quote", asks(":authority t\"x\n", ""), "", "400|reset"},
	{"authority and an equal host", asks("host t\n", ""), get("/"), "200|400|reset"},
	{"authority and another host", asks("host u\n", ""), get("/"), "400|reset|200"}, // RFC 9113 section 8.3.1: the authority counts
	{"authority and two hosts", asks("host t\nhost u\n", ""), "", "400|reset"},
	{"host alone", frame(headers, endHeaders|endStream, 1, block(":method GET\n:scheme http\n:path /\nhost t\n")), get("/"), "200|400|reset"},
	{"host alone, bad", frame(headers, endHeaders|endStream, 1, block(":method GET\n:scheme http\n:path /\nhost t/x\n")), "", "400|reset"},
	{"neither", frame(headers, endHeaders|endStream, 1, block(":method GET\n:scheme http\n:path /\n")), "GET / HTTP/1.1\nHost: {backend}\nForwarded: for=127.0.0.1;proto=http\nX-Forwarded-Host: \n\n", "200|400|reset"},

	{"upper case", asks("A b\n", ""), "", "400|reset|gone"},
	{"a name that is none", asks("a( b\n", ""), "", "400|reset|gone"},
	{"a name with a space", frame(headers, endHeaders|endStream, 1, block(":method GET\n:scheme http\n:authority t\n:path /\n")+"\x00\x03a b\x01c"), "", "400|reset|gone"},
	{"a name with a colon", asks("a:b c\n", ""), "", "400|reset|gone"},
	{"a name with CR LF", frame(headers, endHeaders|endStream, 1, block(":method GET\n:scheme http\n:authority t\n:path /\n")+"\x00\x04a\r\nb\x01c"), "", "400|reset|gone"},
	{"an empty name", frame(headers, endHeaders|endStream, 1, block(":method GET\n:scheme http\n:authority t\n:path /\n")+"\x00\x00\x01c"), "", "400|reset|gone"},
	{"a value with CR LF", frame(headers, endHeaders|endStream, 1, block(":method GET\n:scheme http\n:authority t\n:path /\n")+"\x00\x01a\x06b\r\nc:d"), "", "400|reset|gone"},
	{"a value with LF", frame(headers, endHeaders|endStream, 1, block(":method GET\n:scheme http\n:authority t\n:path /\n")+"\x00\x01a\x03b\nc"), "", "400|reset|gone"},
	{"a value with NUL", asks("a b\x00c\n", ""), "", "400|reset|gone"},
	{"connection", asks("connection close\n", ""), get("/"), "200|400|reset"}, // RFC 9113 section 8.2.2: malformed; off it is safe as well
	{"connection names a field", asks("connection x-forwarded-for, cookie\ncookie a=b\n", ""), get("/") + "‖" + with("Cookie: a=b\n"), "200|400|reset"},
	{"transfer-encoding", asks(":method POST\ntransfer-encoding chunked\n", "0\r\n\r\n"+wire(next)), h2post("0\r\n\r\n" + wire(next)), "200|400|reset"},
	{"transfer-encoding and no body", asks("transfer-encoding chunked\n", ""), get("/"), "200|400|reset"},
	{"upgrade", asks("connection upgrade\nupgrade websocket\nsec-websocket-key AAAAAAAAAAAAAAAAAAAAAA==\nsec-websocket-version 13\n", ""),
		with("Sec-Websocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\nSec-Websocket-Version: 13\n"), "200|400|reset"},
	{"te", asks("te gzip\n", ""), get("/"), "200|400|reset"},
	{"te trailers", asks("te trailers\n", ""), with("Te: trailers\n"), "200"},
	{"forged addresses", asks("x-forwarded-for 6.6.6.6\nforwarded for=6.6.6.6\nx-real-ip 6.6.6.6\nx_forwarded_for 6.6.6.6\n", ""), get("/"), "200"},
	{"cookies in crumbs", asks("cookie a=b\ncookie limpet=x\ncookie c=d\n", ""), with("Cookie: a=b; c=d\n"), "200"},
	{"many", asks(strings.Repeat("a b\n", 5000), ""), with(strings.Repeat("A: b\n", 5000)), "200|431|reset|gone"},
	{"very many", frame(headers, endStream, 1, block(":method GET\n:scheme http\n:authority t\n:path /\n")) +
		strings.Repeat(frame(continuation, 0, 1, block(strings.Repeat("a b\n", 3000))), 30) + frame(continuation, endHeaders, 1, ""), "", "431|reset|gone"},

	{"content-length too large", asks(":method POST\ncontent-length 9\n", "hello"), post("Content-Length: 9\n", "hello") + "…", "400|502|reset|gone"},
	{"content-length too small", asks(":method POST\ncontent-length 2\n", "hello"), post("Content-Length: 2\n", "he") + "…", "400|502|reset|gone"},
	{"content-length too small, pieces", asks(":method POST\ncontent-length 2\n", "he", "a b\n"), post("Content-Length: 2\n", "he"), "200|400|reset"},
	{"content-length of no body", asks(":method POST\ncontent-length 5\n", ""), post("Content-Length: 0\n", ""), "200|400|reset|gone"},
	{"content-length twice", asks(":method POST\ncontent-length 5\ncontent-length 6\n", "hello"), "", "400|reset|gone"},
	{"content-length twice, equal", asks(":method POST\ncontent-length 5\ncontent-length 5\n", "hello"), lengthed, "200|400|reset"},
	// net/http takes what is no number for 0, and resets the stream when more comes.
	{"content-length, a list", asks(":method POST\ncontent-length 5, 6\n", "hello"), post("Content-Length: 0\n", ""), "400|reset|gone"},
	{"content-length +5", asks(":method POST\ncontent-length +5\n", "hello"), post("Content-Length: 0\n", ""), "400|reset|gone"},
	{"content-length -1", asks(":method POST\ncontent-length -1\n", "hello"), post("Content-Length: 0\n", ""), "400|reset|gone"},
	{"expect", asks(":method POST\nexpect 100-continue\n", "hello"), h2post("hello") + "‖" + post("Expect: 100-continue\nTransfer-Encoding: chunked\n", "hello"), "200"},
	{"expect, another", asks(":method POST\nexpect 999\n", "hello"), post("Expect: 999\nTransfer-Encoding: chunked\n", "hello"), "200|400|417|reset"},

	{"trailer", asks(":method POST\ntrailer sum\n", "hello", "sum 1\n"), post("Trailer: Sum\nTransfer-Encoding: chunked\n", "hello\nSum: 1\n"), "200"},
	{"trailer, dangerous", asks(":method POST\ntrailer sum, x-forwarded-for, cookie, host, connection\n", "hello", "sum 1\nx-forwarded-for 6.6.6.6\ncookie a=b\nhost u\n"),
		post("Trailer: Sum\nTransfer-Encoding: chunked\n", "hello\nSum: 1\n"), "200|400|reset"},
	{"trailer, dangerous and unannounced", asks(":method POST\ntrailer sum\n", "hello", "sum 1\nx-forwarded-for 6.6.6.6\nauthorization a\n"),
		post("Trailer: Sum\nTransfer-Encoding: chunked\n", "hello\nSum: 1\n"), "200|400|reset"},
	{"trailer, pseudo", asks(":method POST\n", "hello", ":path /admin\n"), h2post("hello") + "…", "400|502|reset|gone"},
	{"trailer, content-length", asks(":method POST\ntrailer content-length\n", "hello", "content-length 9\n"), h2post("hello"), "200|400|reset"},
	{"trailer that doesn't end", frame(headers, endHeaders, 1, block(":method POST\n:scheme http\n:authority t\n:path /\n")) + frame(headers, endHeaders, 1, block("a b\n")), h2post("") + "…", "400|502|reset|gone"},

	{"data before headers", frame(data, endStream, 1, "hello") + asks("", ""), "", "gone"},
	{"data behind the end", asks("", "") + frame(data, endStream, 1, "hello"), get("/"), "200|reset|gone"},
	{"headers behind the end", asks("", "") + frame(headers, endHeaders|endStream, 1, block("a b\n")), get("/"), "200|reset|gone"},
	{"an even stream", frame(headers, endHeaders|endStream, 2, block(":method GET\n:scheme http\n:authority t\n:path /\n")), "", "gone"},
	{"stream 0", frame(headers, endHeaders|endStream, 0, block(":method GET\n:scheme http\n:authority t\n:path /\n")), "", "gone"},
	{"a promise", frame(pushPromise, endHeaders, 1, "\x00\x00\x00\x02"), "", "gone"},
	{"a continuation of nothing", frame(continuation, endHeaders, 1, block("a b\n")), "", "gone"},
	{"another frame amid headers", frame(headers, endStream, 1, block(":method GET\n")) + frame(ping, 0, 0, "12345678"), "", "gone"},
	{"HPACK that is nonsense", frame(headers, endHeaders|endStream, 1, "\xff\xff\xff\xff\xff\xff"), "", "gone"},
	{"an index of a table that is empty", frame(headers, endHeaders|endStream, 1, block(":method GET\n:scheme http\n:authority t\n:path /\n")+"\xbf"), "", "gone"},
	{"a frame that is too large", frame(data, 0, 1, strings.Repeat("a", 2<<20)), "", "gone"},
	{"a window of 0", frame(windowUpdate, 0, 0, "\x00\x00\x00\x00"), "", "gone"},
	{"a window too large", frame(windowUpdate, 0, 0, "\x7f\xff\xff\xff"), "", "gone"},
	{"settings of an odd length", frame(settings, 0, 0, "12345"), "", "gone"},
	{"a request of HTTP/1", "GET / HTTP/1.1\r\nHost: t\r\n\r\n", "", "gone"},
	{"a reset of its own", frame(headers, endHeaders, 1, block(":method POST\n:scheme http\n:authority t\n:path /\n")) + frame(data, 0, 1, "hel") + frame(rstStream, 0, 1, "\x00\x00\x00\x08") + frame(ping, 0, 0, "12345678") + frame(data, 0, 0, ""), h2post("hel") + "…", "gone"},
	{"frames of an unknown type", frame(200, 255, 1, "a") + asks("", "") + frame(200, 255, 0, "b"), get("/"), "200"},
}

func TestHTTP2(t *testing.T) {
	t.Parallel()
	for _, r := range h2rows {
		to := newRig(t)
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			r.run(t, to)
		})
	}
}
